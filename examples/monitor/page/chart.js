// A chart that is drawn again only if its data or its width have changed.
import {svg} from "./dom.js";

/**
 * chart returns a function that shows data in a container. draw(data, width) returns
 * {height, text, parts}: text describes the chart to those who do not see it.
 */
export function chart(container, draw) {
  let data, shown = "";
  const show = () => {
    const width = Math.floor(container.clientWidth);
    if (!data || width < 50) return;
    const state = width + JSON.stringify(data);
    if (state === shown) return;
    shown = state;
    const {height, text, parts} = draw(data, width);
    container.replaceChildren(svg("svg", {
      viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": text,
    }, ...parts));
  };
  new ResizeObserver(show).observe(container);
  return next => { data = next; show(); };
}
