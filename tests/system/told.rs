//! What keeper and master say, as far as it is counted: a world in which nothing happens proves nothing.

/// Connections waited in the socket of a slot without a worker.
pub(crate) const STRANDED: &str = "told: connections closed for want of a worker";

/// The keeper has ended everything by itself, because there was no master to stop it.
pub(crate) const WITHOUT_MASTER: &str = "told: stops without a master";

/// A worker was stopped for a while.
pub(crate) const STOPPED: &str = "workers stopped for a while";

/// Words of a line, and what they count as. The first that fits counts.
const WORDS: [(&str, &str); 26] = [
    ("no master has served", WITHOUT_MASTER),
    (": reloaded, generation", "told: reloads done"),
    ("on which it depends, was not reloaded", "told: reloads that followed another's failure"),
    ("failed: the canary", "told: reloads ended by the canary"),
    (": reload to generation", "told: reloads failed or superseded"),
    ("reload refused", "told: reloads refused"),
    ("watching worker", "told: canaries"),
    ("by hand", "told: scaled by hand"),
    (": scaled", "told: scaled"),
    ("spare worker", "told: spares used"),
    ("leaves by itself", "told: workers leave by themselves"),
    ("MB allowed", "told: replaced for memory"),
    ("has lived", "told: replaced for age"),
    ("has taken", "told: replaced for connections"),
    ("liveness probes in a row", "told: replaced for probes"),
    ("event loop", "told: hung workers"),
    ("has not drained in time", "told: not drained in time"),
    ("has not ended in time", "told: not ended in time"),
    ("never read: given to other workers", "told: rescued from hung workers"),
    ("was not ready after", "told: not ready in time"),
    ("it sent", "told: workers failed for what they sent"),
    ("no heartbeat", "told: hung masters"),
    ("has no worker any more", STRANDED),
    (": waits for", "told: waits for another app"),
    ("is not ready: it listens", "told: listens elsewhere"),
    ("without telling this master", "told: server closed unseen"),
];

/// What is never true in these worlds.
const WRONG: [&str; 2] = ["another process of this user has joined", "is not in the checkpoint"];

/// Whether a line says that something was lost.
pub(crate) fn is_wrong(line: &str) -> bool {
    WRONG.iter().any(|words| line.contains(words))
}

/// The name under which a line counts.
pub(crate) fn name(line: &str) -> Option<&'static str> {
    WORDS.iter().find(|(words, _)| line.contains(words)).map(|(_, name)| *name)
}
