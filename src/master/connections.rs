//! The connections of an app that were accepted and not yet taken by a worker, by index. Generic over the socket: an fd
//! in the master, a number in a script.
use crate::balance::ConnIx;
use crate::ids::ListenerIx;
use crate::worker::node::lines::NewconnLine;

/// A connection that was accepted and not yet taken by a worker.
pub struct Connection<S> {
    /// Our copy of its socket.
    pub socket: S,
    /// The listener that accepted it, by index in the app.
    pub listener: ListenerIx,
    /// Hash of the client's address, for sticky balancing.
    pub client_hash: Option<u64>,
    /// When it was accepted, or given back by a worker, in microseconds.
    pub since_us: u64,
    /// The hand-off line of its own, where it carries a state (an upgraded connection that moved); others have their listener's.
    pub own_line: Option<Box<NewconnLine>>,
    /// The number under which the keeper holds it while it waits for a worker (`in_hand`).
    pub kept_as: Option<u64>,
}

/// Open connections. Indices are reused.
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
    #[inline]
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

    #[inline]
    pub fn get(&self, conn: ConnIx) -> Option<&Connection<S>> {
        self.slots.get(conn.0 as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, conn: ConnIx) -> Option<&mut Connection<S>> {
        self.slots.get_mut(conn.0 as usize)?.as_mut()
    }

    /// Removes a connection and frees its index.
    #[inline]
    pub fn remove(&mut self, conn: ConnIx) -> Option<Connection<S>> {
        let removed = self.slots.get_mut(conn.0 as usize)?.take()?;
        self.free.push(conn.0);
        Some(removed)
    }

    /// Every open connection.
    pub fn iter(&self) -> impl Iterator<Item = &Connection<S>> {
        self.slots.iter().flatten()
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
