//! Troubles of the network that make keepalived hosts fight in silence: each is named, and moves
//! nobody.
//!
//! In: a pair in service. Out: laws of facts/vrrp.md 3.1 and 3.8. Must not: need a database.

use std::time::Duration;

use crate::foreign::{self, Timing};
use crate::pair::Pair;
use crate::world::{Link, Outcome, wait_until};
use crate::{check, has_finding, on_a_pair};

const FOUND_LIMIT: Duration = Duration::from_secs(20);

/// The finding appears, the roles stay, and it goes when the trouble does.
fn is_found(
    pair: &mut Pair,
    words: &str,
    trouble: impl Fn(&mut Pair, bool) -> Outcome<()>,
) -> Outcome<()> {
    trouble(pair, true)?;
    wait_until(&format!("server2 says {words:?}"), FOUND_LIMIT, || has_finding(pair, 1, words))
        .map_err(|why| format!("{why}; {}", pair.servers[1].summary()))?;
    check(pair.is_settled(0), || format!("{words:?} moved the roles"))?;
    trouble(pair, false)?;
    wait_until(&format!("{words:?} goes"), FOUND_LIMIT, || !has_finding(pair, 1, words))?;
    check(pair.is_settled(0), || format!("the end of {words:?} moved the roles"))
}

#[test]
fn a_firewall_that_drops_vrrp_is_named() {
    on_a_pair(|pair| {
        is_found(pair, "allow IP protocol 112", |pair, is_on| {
            let commands: &[&str] = if is_on {
                &[
                    "add table ip t",
                    "add chain ip t in { type filter hook input priority 0; }",
                    "add rule ip t in ip protocol 112 drop",
                ]
            } else {
                &["delete table ip t"]
            };
            let host = &pair.servers[1].host;
            commands.iter().try_for_each(|command| host.read(&["nft", command]).map(drop))
        })
    });
}

#[test]
fn multicast_that_does_not_arrive_is_named() {
    on_a_pair(|pair| {
        is_found(pair, "look at IGMP snooping", |pair, is_on| {
            pair.world.filter_multicast("server2", Link::Outside, is_on)
        })
    });
}

#[test]
fn a_link_that_is_silent_one_way_is_named() {
    on_a_pair(|pair| {
        is_found(pair, "does not hear us", |pair, is_on| {
            let commands: &[&str] = if is_on {
                &[
                    "add table netdev t",
                    "add chain netdev t in { type filter hook ingress device eth0 priority 0; }",
                    "add rule netdev t in ip saddr 10.96.153.114 drop",
                ]
            } else {
                &["delete table netdev t"]
            };
            let host = &pair.servers[0].host;
            commands.iter().try_for_each(|command| host.read(&["nft", command]).map(drop))
        })
    });
}

#[test]
fn a_stranger_on_our_vrid_is_named() {
    on_a_pair(|pair| {
        // Another installation on the same network, with the same VRIDs and password.
        foreign::configure(&pair.client, &Timing::V2, 50)?;
        foreign::start(&mut pair.client)?;
        // It hears a Master of higher priority and stays silent until nobody hears it.
        for link in Link::ALL {
            pair.world.filter_multicast("client", link, true)?;
        }
        wait_until("the stranger is named", FOUND_LIMIT, || {
            has_finding(pair, 1, "give one of the two another VRID")
                || has_finding(pair, 0, "give one of the two another VRID")
        })?;
        check(pair.is_settled(0), || "a stranger moved the roles".into())
    });
}
