// Sets the theme before anything is painted. A plain script: a module would run after the first paint and flash.
(() => {
  const kept = (() => { try { return localStorage.getItem("gradwatch.theme"); } catch { return null; } })();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = (choice) => {
    const theme = choice === "light" || choice === "dark" ? choice : dark.matches ? "dark" : "light";
    document.documentElement.dataset.theme = theme;
    document.documentElement.dataset.choice = choice || "auto";
    dispatchEvent(new CustomEvent("gradwatch-theme", { detail: theme }));
  };
  apply(kept);
  dark.addEventListener("change", () => apply(document.documentElement.dataset.choice));
  globalThis.gradwatchTheme = (choice) => {
    try { localStorage.setItem("gradwatch.theme", choice); } catch { /* a private window keeps nothing */ }
    apply(choice);
  };
})();
