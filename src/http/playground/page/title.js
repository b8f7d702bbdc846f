// The tab's title: what is shown, and, for who is elsewhere, how a run has ended.

import { useEffect, useState } from "./vendor/preact-htm.js";

/** @param {string} view @param {string} end of a run, in a word; nothing while there is none */
export function useTitle(view, end) {
  const [news, setNews] = useState("");
  useEffect(() => {
    if (!end || !document.hidden) return setNews("");
    setNews(end);
    const see = () => document.hidden || setNews("");
    document.addEventListener("visibilitychange", see);
    return () => document.removeEventListener("visibilitychange", see);
  }, [end]);
  useEffect(() => {
    document.title = `${news && `${news} – `}${view} – fourstep`;
  }, [news, view]);
  useEffect(() => () => void (document.title = "fourstep"), []);
}
