// One run as the page knows it, from the click to the picture.

import { useCallback, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { Refusal, cancel, create, follow, get } from "./api.js";

/**
 * @typedef {import("./api.js").Prediction} Prediction
 * @typedef {import("./api.js").Input} Input
 * @typedef {{
 *   phase: "sending" | "queued" | "running" | "ended" | "refused",
 *   begun: number, input: Input, width: number, height: number, outputs: number,
 *   prediction?: Prediction, position?: number, eta?: number, step: number, total: number, previews: string[],
 *   since?: number, away: boolean, canceling: boolean, refusal?: Refusal,
 * }} Run
 */

/** Names a wish to draw, so that asking again after a lost answer draws it once. (`randomUUID` is there with TLS alone.) */
const newIntent = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(16)).join("-");

const ENDED = ["succeeded", "failed", "canceled"];
/** Where this tab keeps what it draws, by its id, until that has ended. */
const DRAWS = "fourstep-draws";

/** The state in a word. @param {Run} run */
export function wordFor({ phase, prediction, away }) {
  if (away) return "Reconnecting";
  if (phase === "ended") return { succeeded: "Done", failed: "Failed", canceled: "Canceled" }[prediction?.status ?? ""] ?? "";
  return { sending: "Sending", queued: "Queued", running: "Drawing", refused: "Refused" }[phase];
}

/**
 * @param {(input: Input) => {width: number, height: number, outputs: number}} shape what an input will draw
 * @param {(refusal: Refusal) => void} onRefusal
 */
export function useRun(shape, onRefusal) {
  const [run, setRun] = useState(/** @type {Run | null} */ (null));
  const following = useRef(/** @type {AbortController | null} */ (null));
  const lost = useRef({ question: "", intent: "" });
  /** How many runs there were: an answer to one before the last changes nothing. */
  const turn = useRef(0);
  const change = (/** @type {Partial<Run>} */ news) => setRun((run) => run && { ...run, ...news });
  const refuse = (/** @type {any} */ error) => {
    const refusal = error instanceof Refusal ? error : new Refusal(0, String(error));
    change({ phase: "refused", refusal });
    onRefusal(refusal);
  };

  const watch = useCallback(async (/** @type {string} */ id) => {
    following.current?.abort();
    sessionStorage.setItem(DRAWS, id);
    const controller = (following.current = new AbortController());
    await follow(id, controller.signal, (event) => {
      if (controller.signal.aborted) return;
      if (event.type === "away") return change({ away: true });
      if (event.type === "queued") return change({ phase: "queued", away: false, position: event.position, eta: event.eta_seconds });
      if (event.type === "started") return change({ phase: "running", away: false, since: performance.now() });
      if (event.type === "finished") {
        sessionStorage.removeItem(DRAWS);
        return change({ phase: "ended", away: false, prediction: event });
      }
      setRun((run) => {
        if (!run) return run;
        const previews = [...run.previews];
        const image = Math.min(run.outputs - 1, Math.floor((event.step - 1) / Math.max(1, event.total / run.outputs)));
        if (event.preview) previews[image] = event.preview;
        const since = run.since ?? performance.now() - 1000 * event.elapsed_seconds;
        return { ...run, phase: "running", away: false, step: event.step, total: event.total, since, previews };
      });
    }).catch(refuse);
  }, []);

  /** @param {Prediction} prediction */
  const show = (prediction) => {
    following.current?.abort();
    sessionStorage.removeItem(DRAWS);
    turn.current++;
    const phase = ENDED.includes(prediction.status) ? "ended" : "queued";
    setRun({ ...fresh(prediction.input), phase, prediction });
    if (phase !== "ended") watch(prediction.id);
  };

  /** @param {Input} input @returns {Run} */
  const fresh = (input) =>
    ({ phase: "sending", begun: performance.now(), input, ...shape(input), step: 0, total: 0, previews: [], away: false, canceling: false });

  /** @param {string} model @param {Input} input @param {{width: number, height: number}} [size] what it will have, if that is known */
  const start = async (model, input, size) => {
    following.current?.abort();
    sessionStorage.removeItem(DRAWS);
    const mine = ++turn.current;
    setRun({ ...fresh(input), ...size });
    const question = JSON.stringify({ model, input });
    const intent = lost.current.question === question ? lost.current.intent : newIntent();
    lost.current = { question, intent };
    try {
      const prediction = await create(model, input, intent);
      if (mine !== turn.current) return;
      lost.current = { question: "", intent: "" };
      change({ phase: "queued", prediction, position: prediction.queue_position ?? undefined, eta: prediction.eta_seconds ?? undefined });
      await watch(prediction.id);
    } catch (error) {
      if (mine === turn.current) refuse(error);
    }
  };

  const stop = async () => {
    if (!run?.prediction) return;
    change({ canceling: true });
    // What comes of it is told by the events.
    await cancel(run.prediction.id).catch(() => change({ canceling: false }));
  };

  useEffect(() => {
    // What this tab was drawing goes on after a reload, unless something else has begun meanwhile.
    const left = sessionStorage.getItem(DRAWS);
    if (left) get(left).then((prediction) => turn.current || show(prediction), ({ status }) => status === 404 && sessionStorage.removeItem(DRAWS));
    return () => {
      turn.current++;
      following.current?.abort();
    };
  }, []);
  return { run, start, show, stop };
}
