/* Charts over what the page already says: without this file the bars in the page stay. */
(() => {
  "use strict";
  const tokens = () => {
    const style = getComputedStyle(document.documentElement);
    const token = (name) => style.getPropertyValue(name).trim();
    return { ink: token("--muted"), rule: token("--rule"), series: [token("--bar"), token("--line-2"), token("--line-3")] };
  };
  const two = (n) => String(n).padStart(2, "0");
  const day = (at) => `${two(at.getUTCMonth() + 1)}-${two(at.getUTCDate())}`;
  const clock = (at) => `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
  const ticks = (plot, splits) => splits.map((seconds) => {
    const at = new Date(seconds * 1000);
    return at.getUTCHours() === 0 && at.getUTCMinutes() === 0 ? day(at) : clock(at);
  });
  const width = (plot, values) => Math.max(44, 16 + 7 * Math.max(0, ...(values || []).map((value) => String(value).length)));
  const drawn = [];
  const draw = (box) => {
    const colours = tokens();
    const bars = box.dataset.kind === "bars";
    const series = JSON.parse(box.dataset.series);
    const points = JSON.parse(box.dataset.points);
    if (points[0].length === 0) return null;
    const axis = { stroke: colours.ink, grid: { stroke: colours.rule, width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const options = {
      width: box.clientWidth,
      height: 150,
      cursor: { drag: { x: false, y: false } },
      legend: { live: true },
      scales: { y: { range: (plot, low, high) => [0, Math.max(4, high * 1.1)] } },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      axes: [{ ...axis, size: 30, values: ticks }, { ...axis, size: width, space: 26, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 1000000] }],
      series: [{ label: "at", value: (plot, seconds) => (seconds === null ? "–" : `${day(new Date(seconds * 1000))} ${clock(new Date(seconds * 1000))}`) }, ...series.map((label, n) => ({
        label,
        stroke: colours.series[n],
        fill: bars ? colours.series[n] : undefined,
        width: bars ? 0 : 1.75,
        points: { show: !bars && points[0].length < 3 },
        paths: bars ? uPlot.paths.bars({ size: [0.8, 60], align: 1 }) : uPlot.paths.linear(),
      }))],
    };
    box.replaceChildren();
    return new uPlot(options, points, box);
  };
  const all = () => {
    drawn.splice(0).forEach((plot) => plot && plot.destroy());
    for (const box of document.querySelectorAll(".chart")) drawn.push(draw(box));
  };
  all();
  let waiting = 0;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(all, 150);
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
})();
