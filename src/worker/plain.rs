//! A program that gets no socket (`protocol = "none"`): a worker of a queue, or one that binds its own address.
use super::{Environment, Inherited, Spawn, WorkerProtocol};
use crate::config::ProtocolKind;

#[derive(Debug)]
pub struct Plain;

impl WorkerProtocol for Plain {
    fn kind(&self) -> ProtocolKind {
        ProtocolKind::Plain
    }

    fn inherited(&self) -> Inherited {
        Inherited::Nothing
    }

    fn variables(&self) -> &'static [&'static str] {
        &[]
    }

    fn environment(&self, _: &Spawn<'_>, _: &mut Environment) {}
}
