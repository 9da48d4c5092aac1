/** The borders of objects as lines, which stay thin however much is enlarged. */

/**
 * @param {ArrayLike<number>} labels 0 is none, every other number an object
 * @param {number[]} shape rows, columns
 * @returns {Path2D} in pixels of the image
 */
export function outlines(labels, [rows, columns]) {
  const path = new Path2D();
  const at = (y, x) => (y < 0 || x < 0 || y >= rows || x >= columns ? 0 : labels[y * columns + x]);
  /** Joins neighbouring pieces of border along a line of pixels. */
  const trace = (length, differs, draw) => {
    let start = -1;
    for (let place = 0; place <= length; place++) {
      const border = place < length && differs(place);
      if (border && start < 0) start = place;
      if (!border && start >= 0) {
        draw(start, place);
        start = -1;
      }
    }
  };
  for (let y = 0; y <= rows; y++) {
    trace(columns, (x) => at(y - 1, x) !== at(y, x), (from, to) => { path.moveTo(from, y); path.lineTo(to, y); });
  }
  for (let x = 0; x <= columns; x++) {
    trace(rows, (y) => at(y, x - 1) !== at(y, x), (from, to) => { path.moveTo(x, from); path.lineTo(x, to); });
  }
  return path;
}
