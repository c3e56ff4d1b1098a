"""Matrix products of activations, in the form that XLA for CPUs computes fast.

On one device the factors are seen as plain matrices. From products that sum over several axes, or
keep several, XLA for CPUs makes copies of a factor in another order, and where autodiff has
transposed the result it then multiplies at half the speed: for 4,096 vectors of width 384 and a
matrix of 384 x 1,536, the gradient of the matrix took 302 ms instead of 142 on one core of an EPYC
(jax 0.10.2, 2026-11-30). Over a mesh the axes stay apart, since several of them may be sharded.
"""

import functools
import math

import jax
import jax.numpy as jnp

FEW = 64  # The most vectors that are the right-hand factor of a product with a transposed matrix.


def is_one_device() -> bool:
  """Returns whether the program runs on one device, as far as the mesh tells."""
  mesh = jax.sharding.get_abstract_mesh()
  return mesh.empty or mesh.size == 1


def matrix_product(
  x: jax.Array, w: jax.Array, contract: int = 1, precision: jax.lax.Precision | None = None
) -> jax.Array:
  """Returns x times w, summed over the last `contract` axes of x and the first ones of w."""
  if not is_one_device():
    return jnp.tensordot(x, w, axes=contract, precision=precision)
  return _plain_product(x, w, contract, precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _plain_product(x, w, contract, precision):
  """Returns `matrix_product` on one device.

  The backward pass keeps x as it is, so that products of the same x keep one array.
  """
  kept, outputs = x.shape[: x.ndim - contract], w.shape[contract:]
  y_XF = jnp.dot(*_as_matrices(x, w, contract), precision=precision)
  return y_XF.reshape(*kept, *outputs)


def _as_matrices(x, w, contract):
  size = math.prod(w.shape[:contract])
  return x.reshape(-1, size), w.reshape(size, -1)


def _forward(x, w, contract, precision):
  return _plain_product(x, w, contract, precision), (x, w)


def _backward(contract, precision, kept, dy):
  x, w = kept
  x_XD, w_DF = _as_matrices(x, w, contract)
  dy_XF = dy.reshape(-1, w_DF.shape[1])
  dx = jax.lax.dot_general(dy_XF, w_DF, (((1,), (1,)), ((), ())), precision=precision)
  dw = jax.lax.dot_general(x_XD, dy_XF, (((0,), (0,)), ((), ())), precision=precision)
  return dx.reshape(x.shape), dw.reshape(w.shape)


_plain_product.defvjp(_forward, _backward)


def product_of_transposed(
  x: jax.Array, w_FD: jax.Array, dtype: jnp.dtype | None = None
) -> jax.Array:
  """Returns x [..., D] times the transpose of a matrix, [..., F].

  Few vectors are the right-hand factor. For 8 and 32 of them all products of SmolLM2-135M take 54
  and 104 ms on two cores, and 98 and 190 ms with the matrix on the right, which is then copied.

  Args:
    dtype: of the result; None means that of the factors.
  """
  x_XD, contract = x.reshape(-1, x.shape[-1]), (((1,), (1,)), ((), ()))
  product = functools.partial(
    jax.lax.dot_general, dimension_numbers=contract, preferred_element_type=dtype
  )
  w_FD = w_FD.astype(x.dtype)
  if len(x_XD) > FEW:
    y_XF = product(x_XD, w_FD)
  else:
    # Without the barrier, the compiler would swap the factors to save the transposition.
    y_XF = jax.lax.optimization_barrier(product(w_FD, x_XD)).T
  return y_XF.reshape(*x.shape[:-1], -1)


def outer_product(a_BTV: jax.Array, x_BTD: jax.Array, dtype: jnp.dtype) -> jax.Array:
  """Returns the sum over all tokens of the outer products of two vectors, [V, D] in `dtype`."""
  if not is_one_device():
    return jnp.einsum('btv,btd->vd', a_BTV, x_BTD, preferred_element_type=dtype)
  a_XV, x_XD = (x.reshape(-1, x.shape[-1]) for x in (a_BTV, x_BTD))
  over_tokens = (((0,), (0,)), ((), ()))
  return jax.lax.dot_general(a_XV, x_XD, over_tokens, preferred_element_type=dtype)
