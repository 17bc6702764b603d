// Draws every figure of the page that carries its data with it, in the colours of the page.
"use strict";
(() => {
  const colors = () => {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(name).trim();
    return { ink: of("--ink"), soft: of("--soft"), grid: of("--grid"), card: of("--card") };
  };

  const themed = (layout) => {
    const { ink, soft, grid, card } = colors();
    const axis = { gridcolor: grid, linecolor: soft, zerolinecolor: soft, tickcolor: soft };
    return {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, size: 13, family: getComputedStyle(document.body).fontFamily },
      hoverlabel: { bgcolor: card, bordercolor: soft, font: { color: ink } },
      xaxis: { ...layout.xaxis, ...axis },
      yaxis: { ...layout.yaxis, ...axis },
    };
  };

  const draw = (figure) => {
    const source = figure.querySelector("script[type='application/json']");
    if (!source || figure.dataset.drawn === source.textContent) return;
    figure.dataset.drawn = source.textContent;
    const { data, layout } = JSON.parse(source.textContent);
    const options = { responsive: true, displayModeBar: false, displaylogo: false };
    Plotly.react(figure.querySelector(".plot"), data, themed(layout), options);
  };

  const all = () => document.querySelectorAll("figure.chart[data-figure]");
  const redraw = () => {
    for (const figure of all()) {
      if (!figure.dataset.drawn) continue;
      figure.dataset.drawn = "";
      draw(figure);
    }
  };

  // A report of many symbols draws what is looked at; a printer looks at all of it.
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
  }, { rootMargin: "400px" });
  const watch = () => { for (const figure of all()) seen.observe(figure); };

  addEventListener("beforeprint", () => all().forEach(draw));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  document.addEventListener("charts-changed", watch);
  watch();
})();
