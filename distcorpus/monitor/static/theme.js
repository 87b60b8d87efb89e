"use strict";
// Dark or light: what the system says, until somebody has chosen.
const Theme = {
  get() {
    try { return localStorage.getItem("distcorpus-theme") || "auto"; } catch { return "auto"; }
  },
  set(theme) {
    document.documentElement.dataset.theme = theme;
    try { localStorage.setItem("distcorpus-theme", theme); } catch { /* then for this page only */ }
  },
  isDark() {
    const theme = document.documentElement.dataset.theme;
    return theme === "dark" || (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  },
  turn() { this.set(this.isDark() ? "light" : "dark"); },
};
document.documentElement.dataset.theme = Theme.get();
