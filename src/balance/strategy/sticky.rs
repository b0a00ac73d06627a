//! Sticky balancing: from a client's address to a slot. Rendezvous hashing (Thaler and Ravishankar, 1998): every slot has
//! a weight for every client and the heaviest wins, so that adding or removing one slot moves only that slot's share.
//!
//! A new client, or one whose worker is gone, costs a pass over all workers.
use super::{Candidate, Candidates, Strategy};
use crate::balance::{GroupIx, MemberIx};
use std::net::IpAddr;

/// Clients whose slot is remembered, for each app: 128 KiB.
const CLIENTS_KNOWN_MAX: usize = 4096;

/// Places in which a client may be remembered.
const BUCKET: usize = 8;

/// The hash of a client. IPv4-mapped IPv6 addresses count as IPv4.
#[inline]
pub fn hash_ip(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(v4) => mix(u64::from(u32::from(v4))),
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            mix(mix((bits >> 64) as u64) ^ bits as u64)
        }
    }
}

#[inline]
pub fn weight(client: u64, slot: u32) -> u64 {
    mix(client ^ mix(u64::from(slot) + 1))
}

/// The strategy, with the places of recent clients.
#[derive(Clone, Debug, Default)]
pub(in crate::balance) struct Sticky {
    homes: Homes,
}

impl Strategy for Sticky {
    const WANTS_CLIENT: bool = true;

    /// A client stays with the slot that it has: what the worker remembers of it is there. It waits for a busy worker,
    /// and gets another slot only while its own has no eligible worker; then it stays there. The window bounds what a
    /// worker may lose by hanging, and is no reason to move: up to the most it may have, clients wait in the worker.
    #[inline]
    fn pick(&mut self, candidates: &mut Candidates<'_>, client: Option<u64>) -> Option<MemberIx> {
        let Some(client) = client else { return candidates.take_turn() };
        if let Some(home) = self.homes.of(candidates.group(), client)
            && let Some(has_room) = candidates.has_room_in_slot(home.member, home.slot)
        {
            return has_room.then_some(home.member);
        }
        self.place(candidates, client)
    }
}

impl Sticky {
    /// The worker for a client that is new, or whose worker is gone. Costs time for each worker.
    #[cold]
    fn place(&mut self, candidates: &Candidates<'_>, client: u64) -> Option<MemberIx> {
        let group = candidates.group();
        let slot = self.homes.of(group, client).map(|home| home.slot);
        let (mut heaviest, mut found) = (0, None);
        candidates.for_each_eligible(|candidate: Candidate<'_>| {
            let (member, own) = (candidate.member, u128::from(slot == Some(candidate.slot())));
            // One number, which is compared at once: its own slot, then the weight, then the member.
            let key = (own << 96) | (u128::from(weight(client, candidate.slot())) << 32) | u128::from(member.0);
            if key >= heaviest {
                (heaviest, found) = (key, Some((member, candidate.slot())));
            }
        });
        let (member, slot) = found?;
        self.homes.remember(Home { client, group, member, slot });
        candidates.has_room_in_slot(member, slot)?.then_some(member)
    }
}

/// The slots of recent clients.
#[derive(Clone, Debug, Default)]
struct Homes {
    /// Found by the low bits of the client's hash; empty until the first client.
    buckets: Vec<[Option<Home>; BUCKET]>,
}

#[derive(Clone, Copy, Debug)]
struct Home {
    client: u64,
    group: GroupIx,
    /// The worker in that slot when the client came last.
    member: MemberIx,
    slot: u32,
}

impl Homes {
    #[inline]
    fn bucket_of(client: u64) -> usize {
        client as usize % (CLIENTS_KNOWN_MAX / BUCKET)
    }

    #[inline]
    fn of(&self, group: GroupIx, client: u64) -> Option<&Home> {
        let bucket = self.buckets.get(Homes::bucket_of(client))?;
        bucket.iter().flatten().find(|home| home.client == client && home.group == group)
    }

    /// Remembers a client, in the place of another one where the bucket is full.
    fn remember(&mut self, home: Home) {
        if self.buckets.is_empty() {
            self.buckets = vec![[None; BUCKET]; CLIENTS_KNOWN_MAX / BUCKET];
        }
        let bucket = &mut self.buckets[Homes::bucket_of(home.client)];
        let is_own = |place: &Option<Home>| place.is_some_and(|is| is.client == home.client && is.group == home.group);
        let own = bucket.iter().position(is_own).or_else(|| bucket.iter().position(Option::is_none));
        bucket[own.unwrap_or((home.client >> 32) as usize % BUCKET)] = Some(home);
    }
}

/// Spreads 64 bits over 64 bits (the finalizer of splitmix64, Steele and others, 2014).
#[inline]
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
