import type { Session } from "./session";

/**
 * Ties a session to the life of the page it is in. A page that is put away is
 * closed first, since a stream that the browser keeps or breaks behind our
 * back would be a ghost; timers of a hidden page hardly run, so the clock is
 * looked at whenever something happens.
 */
export function followPage(session: Session): () => void {
  const stop = new AbortController();
  const on = (target: EventTarget, type: string, fn: (event: Event) => void) =>
    target.addEventListener(type, fn, { signal: stop.signal });

  on(window, "pagehide", () => session.suspend());
  on(window, "pageshow", (event) => {
    if ((event as PageTransitionEvent).persisted) session.wake();
  });
  on(document, "freeze", () => session.suspend());
  on(document, "resume", () => session.wake());
  on(document, "visibilitychange", () => {
    if (document.visibilityState === "hidden") session.save();
    else session.check();
  });
  on(window, "online", () => session.online());
  on(window, "offline", () => session.check());
  return () => stop.abort();
}
