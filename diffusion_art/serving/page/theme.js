// Light, dark or as the system says: set before the first paint, so that nothing flashes; and the button that changes it.
(() => {
  const THEMES = ["system", "light", "dark"];
  const root = document.documentElement;

  function choose(theme) {
    if (theme === "system") delete root.dataset.theme;
    else root.dataset.theme = theme;
    const button = document.getElementById("theme");
    button.setAttribute("aria-label", `Light or dark: ${theme === "system" ? "as the system" : theme}`);
    button.title = button.getAttribute("aria-label");
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // not kept, then
    }
  }

  const chosen = (() => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // storage is closed to this page
    }
  })();
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
  document.addEventListener("DOMContentLoaded", () => {
    choose(root.dataset.theme ?? "system");
    document.getElementById("theme").addEventListener("click", () => {
      choose(THEMES[(THEMES.indexOf(root.dataset.theme ?? "system") + 1) % THEMES.length]);
    });
  });
})();
