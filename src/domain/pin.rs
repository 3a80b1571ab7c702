//! Which storage nodes keep a roll-up.
//!
//! ipfs-cluster's own choice by free space sends everything to the emptiest peer until the next measurement (seen:
//! 0/2000/2000 pins), so each pin carries the peers chosen here. Pure: the recorder brings the measurements and keeps
//! the [`Spread`].

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    time::Duration,
};

use super::identity::PeerId;

/// How long a cluster peer gathers pins before it commits them. Within this window a `DELETE` answers 404 and the pin
/// still comes: look again after two of these.
pub const BATCH_AGE: Duration = Duration::from_millis(500);

/// Room a peer must have left beyond the pin itself: measurements are up to 10 s old.
const MARGIN: u64 = 64 * 1024 * 1024;

/// A live storage node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Identity of its ipfs-cluster peer.
    pub id: PeerId,
    /// Host it runs on: replicas go to different hosts while there are enough of them (row V11).
    pub host: String,
    /// Bytes it has room for.
    pub free: u64,
}

/// Why a pin finds no peers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooFew {
    /// Fewer live peers than replicas.
    #[error(
        "{wanted} replicas need {wanted} storage nodes online, {live} are: start the missing ones, add StorageNodes, \
         or lower storage.replicas"
    )]
    Online {
        /// Replicas asked for.
        wanted: u32,
        /// Peers that answer.
        live: usize,
    },
    /// Enough peers, but not enough with room.
    #[error(
        "{wanted} replicas need {wanted} storage nodes with room, {roomy} have: add StorageNodes or shorten storage.retention"
    )]
    Room {
        /// Replicas asked for.
        wanted: u32,
        /// Peers with room.
        roomy: usize,
    },
}

impl TooFew {
    /// Stable word for conditions, events and metric labels.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Online { .. } => "TooFewStorageNodes",
            Self::Room { .. } => "StorageFull",
        }
    }
}

/// Remembers what each peer was lately given, in proportion to its room: the one that was given least comes next.
///
/// Lives as long as the recorder; starting anew costs nothing but one round of evenness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// For each peer: sum of bytes given ÷ room at that time, as a fixed-point number.
    given: BTreeMap<PeerId, u128>,
}

impl Spread {
    /// Chooses `replicas` different peers for `bytes` and notes it. The same calls in the same order choose the same.
    pub fn choose(&mut self, bytes: u64, replicas: NonZeroU32, peers: &[Peer]) -> Result<Vec<PeerId>, TooFew> {
        let wanted = replicas.get() as usize;
        let peers: BTreeMap<&PeerId, &Peer> = peers.iter().map(|peer| (&peer.id, peer)).collect();
        if peers.len() < wanted {
            return Err(TooFew::Online { wanted: replicas.get(), live: peers.len() });
        }
        self.follow(peers.keys().copied());
        let mut roomy: Vec<&Peer> =
            peers.into_values().filter(|peer| peer.free >= bytes.saturating_add(MARGIN)).collect();
        if roomy.len() < wanted {
            return Err(TooFew::Room { wanted: replicas.get(), roomy: roomy.len() });
        }
        roomy.sort_by_key(|peer| (self.given[&peer.id], &peer.id));

        let mut chosen: Vec<&Peer> = Vec::with_capacity(wanted);
        let mut hosts = BTreeSet::new();
        for peer in &roomy {
            if chosen.len() < wanted && hosts.insert(&peer.host) {
                chosen.push(peer);
            }
        }
        for peer in &roomy {
            if chosen.len() < wanted && !chosen.contains(peer) {
                chosen.push(peer);
            }
        }
        for peer in &chosen {
            let share = (u128::from(bytes.max(1)) << 64) / u128::from(peer.free.max(1));
            *self.given.entry(peer.id.clone()).or_default() += share;
        }
        Ok(chosen.into_iter().map(|peer| peer.id.clone()).collect())
    }

    /// Forgets peers that are gone. A new one (or one that is back) starts beside the least used: starting at zero it
    /// would be given everything until it had caught up.
    fn follow<'a>(&mut self, live: impl Iterator<Item = &'a PeerId>) {
        let live: Vec<_> = live.collect();
        self.given.retain(|known, _| live.binary_search(&known).is_ok());
        let start = self.given.values().min().copied().unwrap_or_default();
        for peer in live {
            self.given.entry(peer.clone()).or_insert(start);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::identity::Identity, *};

    const GIB: u64 = 1 << 30;

    fn peer(number: u8, host: &str, free: u64) -> Peer {
        Peer { id: Identity::from_seed([number; 32]).peer_id, host: host.into(), free }
    }

    fn replicas(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).expect("not zero")
    }

    #[test]
    fn too_few_nodes_are_named_with_a_way_out() {
        let one = [peer(1, "a", GIB)];
        let error = Spread::default().choose(1, replicas(2), &one).expect_err("one peer");
        assert_eq!(error, TooFew::Online { wanted: 2, live: 1 });
        assert!(error.to_string().contains("storage.replicas"));
        let full = [peer(1, "a", GIB), peer(2, "b", MARGIN)];
        let error = Spread::default().choose(1, replicas(2), &full).expect_err("one of them is full");
        assert_eq!(error, TooFew::Room { wanted: 2, roomy: 1 });
    }

    #[test]
    fn a_new_node_is_not_flooded() {
        let mut spread = Spread::default();
        let mut peers = vec![peer(1, "a", GIB), peer(2, "b", GIB), peer(3, "c", GIB)];
        for _ in 0..300 {
            spread.choose(1, replicas(2), &peers).expect("room");
        }
        peers.push(peer(4, "d", GIB));
        let newcomer = peers[3].id.clone();
        let given =
            (0..40).filter(|_| spread.choose(1, replicas(2), &peers).expect("room").contains(&newcomer)).count();
        assert!((18..=22).contains(&given), "2 of 4 peers take each pin; the new one took {given} of 40");
    }

    #[test]
    fn a_bigger_disk_takes_more() {
        let mut spread = Spread::default();
        let peers = [peer(1, "a", GIB), peer(2, "b", 3 * GIB)];
        let big = peers[1].id.clone();
        let given = (0..40).filter(|_| spread.choose(1, replicas(1), &peers).expect("room").contains(&big)).count();
        assert!((29..=31).contains(&given), "{given} of 40");
    }

    proptest! {
        #[test]
        fn equal_nodes_are_used_equally(count in 1u8..8, wanted in 1u32..8, pins in 1usize..200, one_host: bool) {
            prop_assume!(wanted <= u32::from(count));
            let peers: Vec<_> = (0..count)
                .map(|number| peer(number, &if one_host { "host".to_owned() } else { format!("host-{number}") }, GIB))
                .collect();
            let mut spread = Spread::default();
            let mut used: BTreeMap<PeerId, usize> = peers.iter().map(|peer| (peer.id.clone(), 0)).collect();
            for _ in 0..pins {
                let chosen = spread.choose(1000, replicas(wanted), &peers).expect("room");
                let different: BTreeSet<_> = chosen.iter().collect();
                prop_assert_eq!(different.len(), wanted as usize);
                for id in chosen {
                    *used.get_mut(&id).expect("a peer that was offered") += 1;
                }
            }
            let (least, most) = (used.values().min().expect("peers"), used.values().max().expect("peers"));
            prop_assert!(most - least <= 1, "{used:?}");
        }

        #[test]
        fn replicas_share_a_host_only_when_hosts_are_too_few(
            hosts in proptest::collection::vec(0u8..5, 1..10), wanted in 1u32..6, bytes in 0u64..GIB / 2,
        ) {
            prop_assume!(wanted as usize <= hosts.len());
            let peers: Vec<_> =
                hosts.iter().zip(0u8..).map(|(host, number)| peer(number, &host.to_string(), GIB)).collect();
            let mut spread = Spread::default();
            let chosen = spread.choose(bytes, replicas(wanted), &peers).expect("room");
            let on: BTreeSet<_> =
                peers.iter().filter(|peer| chosen.contains(&peer.id)).map(|peer| &peer.host).collect();
            let there: BTreeSet<_> = peers.iter().map(|peer| &peer.host).collect();
            prop_assert_eq!(on.len(), there.len().min(wanted as usize));
        }

        #[test]
        fn the_order_of_the_list_does_not_matter(mut numbers in proptest::collection::vec(0u8..20, 3..10), bytes in 0u64..GIB / 2) {
            let list = |numbers: &[u8]| numbers.iter().map(|n| peer(*n, &(n % 3).to_string(), GIB)).collect::<Vec<_>>();
            let forth = Spread::default().choose(bytes, replicas(2), &list(&numbers));
            numbers.reverse();
            prop_assert_eq!(forth, Spread::default().choose(bytes, replicas(2), &list(&numbers)));
        }
    }
}
