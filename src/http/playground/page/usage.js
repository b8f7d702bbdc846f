// What was spent, day by day.

import { html } from "./vendor/preact-htm.js";
import { day, exact, seconds } from "./format.js";

/** @typedef {{day: string, runs: number, seconds: number, cost: number}} Day */

/** The days of some predictions, the latest first. @param {import("./api.js").Prediction[]} predictions @returns {Day[]} */
export function daysOf(predictions) {
  /** @type {Map<string, Day>} */
  const days = new Map();
  for (const { created_at, metrics } of predictions) {
    const label = day(created_at);
    const sum = days.get(label) ?? { day: label, runs: 0, seconds: 0, cost: 0 };
    days.set(label, { ...sum, runs: sum.runs + 1, seconds: sum.seconds + (metrics?.predict_time ?? 0), cost: sum.cost + (metrics?.cost ?? 0) });
  }
  return [...days.values()];
}

/** @param {{days: Day[], all: boolean}} given */
export function Usage({ days, all }) {
  const most = Math.max(...days.map(({ cost }) => cost));
  return html`<section class="card usage" aria-labelledby="usage-title">
    <h2 id="usage-title">Cost by day${!all && html` <em>of what is listed below</em>`}${all && html` <em>this month, in UTC</em>`}</h2>
    <div class="scroll" tabindex="0" role="region" aria-labelledby="usage-title"><table>
      <thead><tr><th scope="col">Day</th><th scope="col">Runs</th><th scope="col">Device time</th><th scope="col">Cost</th><td class="bar"></td></tr></thead>
      <tbody>${days.map(({ day, runs, seconds: time, cost }) => html`<tr><th scope="row">${day}</th><td>${runs}</td><td>${seconds(time)}</td><td data-day-cost>${exact(cost)}</td>
        <td class="bar" aria-hidden="true"><i style=${{ width: `${most > 0 ? Math.max(1, (100 * cost) / most) : 0}%` }}></i></td></tr>`)}</tbody>
    </table></div>
  </section>`;
}
