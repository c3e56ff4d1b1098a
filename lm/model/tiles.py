"""Products with int8 matrices on CPUs: the bytes become numbers in registers, a tile at a time.

XLA for CPUs converts a whole int8 matrix to float32 in memory before it multiplies by it, which
takes several times as long as reading the float32 matrix. Here a matrix is cut into tiles of a size
for which its compiler unrolls the sum over inputs and computes the outputs side by side, so that
each byte is read once, converted and multiplied. Axes are those of lm/model/transformer.py, and
here also P and C, tiles of inputs and the inputs of a tile, and O and W, tiles of outputs and the
outputs of a tile.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

INPUTS, OUTPUTS = 16, 64  # of a tile. For more inputs the compiler does not unroll the sum.
# The most vectors for which this is not slower than converting the matrix first. By tiles the
# engine draws 48, 52 and 54 tokens a second of SmolLM2-135M in 2, 4 and 8 rows; by converting it
# draws 16 and 51 in 2 and 8.
FEW = 8


def cut(w_DF: jax.Array) -> jax.Array:
  """Returns an int8 matrix in tiles, [O, P, C, W], with zeros where it does not fill them."""
  D, F = w_DF.shape
  w_DF = jnp.pad(w_DF, ((0, -D % INPUTS), (0, -F % OUTPUTS)))
  return w_DF.reshape(-(-D // INPUTS), INPUTS, -1, OUTPUTS).transpose(2, 0, 1, 3)


def product(x: jax.Array, w_OPCW: jax.Array, num_outputs: int) -> jax.Array:
  """Returns x [..., D] times a matrix that `cut` has cut, float32 [..., F].

  Args:
    num_outputs: F.
  """
  x_XD = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
  if len(x_XD) <= FEW:
    y_XF = _few(x_XD, w_OPCW)
  else:
    w_FD = w_OPCW.transpose(0, 3, 1, 2).reshape(math.prod(w_OPCW.shape[::3]), -1)
    w_FD = jax.lax.optimization_barrier(w_FD[:num_outputs, : x_XD.shape[-1]].astype(jnp.float32))
    y_XF = jax.lax.dot_general(x_XD, w_FD, (((1,), (1,)), ((), ())))
  return y_XF[:, :num_outputs].reshape(*x.shape[:-1], num_outputs)


def _few(x_XD: jax.Array, w_OPCW: jax.Array) -> jax.Array:
  """Returns the product for a few vectors, with the outputs that fill the last tile."""
  X, D = x_XD.shape
  # Else the compiler would convert the whole matrix before the loop over tokens that this is in.
  x_XD, w_OPCW = jax.lax.optimization_barrier((x_XD, w_OPCW))
  x_XD = jnp.pad(x_XD, ((0, 0), (0, -D % INPUTS)))
  # A product with the identity is an operation that is not fused: the compiler would compute the
  # vector anew, from the norm or the activation before it, for every tile.
  x_XPC = jnp.einsum('xpc,cd->xpd', x_XD.reshape(X, -1, INPUTS), jnp.eye(INPUTS))
  x_PXC = x_XPC.swapaxes(0, 1)
  products_OPXCW = w_OPCW[:, :, None].astype(jnp.float32) * x_PXC[None, ..., None]
  # Written as an addition, the sum would go to a library that converts and multiplies in memory.
  sums_OPXW = jax.lax.reduce(products_OPXCW, np.float32(0), lambda a, b: b - (-a), (3,))
  y_OXW = jax.lax.optimization_barrier(sums_OPXW).sum(1)
  return y_OXW.swapaxes(0, 1).reshape(X, -1)
