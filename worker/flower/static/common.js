/* What both pages share. All text goes into the page as text: no markup is ever made of data. */
window.batchord = (function () {
    "use strict";

    var NONE = "—";

    function el(tag, attributes, ...children) {
        var made = document.createElement(tag);
        Object.entries(attributes || {}).forEach(function ([name, value]) {
            if (value !== null && value !== undefined) {
                made.setAttribute(name, value);
            }
        });
        made.append(...children.filter(function (child) {
            return child !== null && child !== undefined;
        }));
        return made;
    }

    /* Show a sentence in a box, or hide the box if there is none. */
    function sentence(box, text) {
        box.hidden = !text;
        box.textContent = text ? text.charAt(0).toUpperCase() + text.slice(1) + "." : "";
    }

    function number(value) {
        return value === null || value === undefined ? NONE : value.toLocaleString("en-US");
    }

    function short(value) {
        if (value === null || value === undefined) {
            return NONE;
        }
        return new Intl.NumberFormat("en-US", {notation: "compact", maximumFractionDigits: 1}).format(value);
    }

    function rate(value) {
        if (value === null || value === undefined) {
            return NONE;
        }
        return value >= 10 ? number(Math.round(value)) : value.toPrecision(2).replace(/\.0$/, "");
    }

    function duration(seconds) {
        if (seconds === null || seconds === undefined) {
            return NONE;
        }
        if (seconds < 1) {
            return Math.round(seconds * 1000) + " ms";
        }
        if (seconds < 10) {
            return seconds.toFixed(1) + " s";
        }
        seconds = Math.round(seconds);
        var units = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]],
            first = units.findIndex(function (unit) {
                return seconds >= unit[0];
            }),
            whole = Math.floor(seconds / units[first][0]),
            rest = units[first + 1] ? Math.floor((seconds % units[first][0]) / units[first + 1][0]) : 0;
        return whole + " " + units[first][1] + (rest ? " " + rest + " " + units[first + 1][1] : "");
    }

    function cost(value) {
        if (value === null || value === undefined) {
            return NONE;
        }
        return "$" + (value >= 1 || value === 0 ? value.toFixed(2) : Number(value.toPrecision(2)));
    }

    /* In the viewer's time zone, which is named. */
    function time(text) {
        return text ? new Date(text).toLocaleString(undefined, {
            year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit",
            timeZoneName: "short"
        }) : NONE;
    }

    /* How long a batch took from its first item to its end; null while it goes on. */
    function took(batch) {
        return batch.ended_at && batch.in_progress_at
            ? (new Date(batch.ended_at) - new Date(batch.in_progress_at)) / 1000 : null;
    }

    function age(created) {
        return duration(Math.max(0, (Date.now() - new Date(created)) / 1000));
    }

    function tokens(usage) {
        if (!usage || (usage.input_tokens === null && usage.output_tokens === null)) {
            return null;
        }
        return (usage.input_tokens || 0) + (usage.output_tokens || 0);
    }

    function done(counts) {
        return counts.succeeded + counts.failed + counts.cancelled + counts.expired;
    }

    /* A batch that has completed with failed items does not look as one without. */
    function badge(batch) {
        var failed = batch.status === "completed" && batch.request_counts.failed;
        return el("span", {"class": "badge batch-badge batch-" + batch.status + (failed ? " batch-flawed" : "")},
            batch.status.replace("_", " ") + (failed ? ", " + number(failed) + " failed" : ""));
    }

    function bar(batch) {
        var counts = batch.request_counts,
            total = counts.total || 1,
            percent = Math.floor(100 * done(counts) / total),
            track = el("div", {
                "class": "batch-bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100,
                "aria-valuenow": percent, "aria-label": "Done"
            });
        ["succeeded", "failed", "cancelled", "expired"].forEach(function (kind) {
            if (counts[kind]) {
                var part = el("span", {"class": "batch-bar-" + kind});
                part.style.width = 100 * counts[kind] / total + "%";
                track.append(part);
            }
        });
        return track;
    }

    function says(counts) {
        var parts = [number(done(counts)) + " of " + number(counts.total) + " done"];
        ["failed", "cancelled", "expired"].forEach(function (kind) {
            if (counts[kind]) {
                parts.push(number(counts[kind]) + " " + kind);
            }
        });
        return parts.join(" · ");
    }

    /* Show what there is, and what is new, while the page is looked at: Flower tells of it. Where its events
       do not come through, as a proxy keeps them, it is asked again and again. Returns what to call for "now". */
    function live(page, query, show) {
        var INTERVAL = 2000,
            PATIENCE = 4000,
            dot = document.getElementById("live-dot"),
            text = document.getElementById("live-text"),
            source = null,
            timer = null,
            turn = 0;

        function tell(state, words) {
            dot.className = "status-dot status-dot-" + state;
            text.textContent = words;
        }

        function stop() {
            turn += 1;
            clearTimeout(timer);
            if (source) {
                source.close();
                source = null;
            }
            return turn;
        }

        async function ask() {
            var mine = stop();
            try {
                var answer = await fetch(page.dataset.url + query(), {credentials: "same-origin", headers: {Accept: "application/json"}});
                if (mine !== turn) {
                    return;
                }
                if (!answer.ok) {
                    tell("error", (await answer.text()) || "Error " + answer.status);
                } else {
                    show(await answer.json());
                    tell("live", "Live");
                }
            } catch (error) {
                tell("error", "Flower does not answer");
            }
            if (mine === turn) {
                timer = setTimeout(ask, INTERVAL);
            }
        }

        function listen() {
            stop();
            return new Promise(function (resolve) {
                function instead() {
                    ask().then(resolve);
                }

                function heard(state, words) {
                    clearTimeout(timer);
                    timer = null;
                    tell(state, words);
                    resolve();
                }

                timer = setTimeout(instead, PATIENCE);
                source = new EventSource(page.dataset.eventsUrl + query());
                source.addEventListener("message", function (event) {
                    show(JSON.parse(event.data));
                    heard("live", "Live");
                });
                source.addEventListener("trouble", function (event) {
                    heard("error", event.data);
                });
                source.addEventListener("error", function () {
                    if (source.readyState === EventSource.CLOSED) {
                        instead();
                    } else if (!timer) {
                        timer = setTimeout(instead, PATIENCE);  // it connects again by itself, or not
                    }
                });
            });
        }

        document.addEventListener("visibilitychange", function () {
            if (document.hidden) {
                stop();  // a browser has few connections to one host
            } else {
                listen();
            }
        });
        if (!document.hidden) {
            listen();
        }
        return listen;
    }

    return {NONE, el, sentence, number, short, rate, duration, cost, time, took, age, tokens, done, badge, bar, says, live};
}());
