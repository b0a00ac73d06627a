//! The connections of an app that were accepted and are not yet taken by a worker, by index. What a socket is does not
//! matter here: the master's are fds, a script's are numbers.
use crate::balance::ConnIx;
use crate::ids::ListenerIx;

/// A connection that was accepted and is not yet taken by a worker.
pub struct Connection<S> {
    /// Our copy of its socket.
    pub socket: S,
    /// The listener that it came from, by index in the app.
    pub listener: ListenerIx,
    /// Its client, for sticky balancing.
    pub client_hash: Option<u64>,
}

/// Connections under way; indices are used again.
pub struct Connections<S> {
    slots: Vec<Option<Connection<S>>>,
    free: Vec<u32>,
}

impl<S> Default for Connections<S> {
    fn default() -> Connections<S> {
        Connections { slots: Vec::new(), free: Vec::new() }
    }
}

impl<S> Connections<S> {
    /// Takes one in.
    pub fn insert(&mut self, connection: Connection<S>) -> ConnIx {
        match self.free.pop() {
            Some(ix) => {
                self.slots[ix as usize] = Some(connection);
                ConnIx(ix)
            }
            None => {
                self.slots.push(Some(connection));
                ConnIx(self.slots.len() as u32 - 1)
            }
        }
    }

    /// The one with this index.
    pub fn get(&self, conn: ConnIx) -> Option<&Connection<S>> {
        self.slots.get(conn.0 as usize)?.as_ref()
    }

    /// Takes it out and frees the index.
    pub fn remove(&mut self, conn: ConnIx) -> Option<Connection<S>> {
        let removed = self.slots.get_mut(conn.0 as usize)?.take()?;
        self.free.push(conn.0);
        Some(removed)
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
