// Applies the stored choice of light or dark before the page is painted; without one the system's
// choice holds. It is not a module, because those run too late for that.
{
  let chosen = null;
  try {
    chosen = localStorage.getItem('theme');
  } catch {
    // Storage may be forbidden; the system's choice holds then.
  }
  if (chosen === 'light' || chosen === 'dark') document.documentElement.dataset.theme = chosen;
}
