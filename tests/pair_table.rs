//! The pair's table: every role and event, the laws that must hold in all of them, and the printed
//! page that a person reads (`UPDATE=1` rewrites it; its diff is reviewed as behaviour).

use tandem::pair::{Act, Event, ROLES, Role, Table, next};

fn cells() -> impl Iterator<Item = (Role, Event, Role, &'static [Act])> {
    ROLES.into_iter().flat_map(|role| {
        Event::ALL.into_iter().map(move |event| {
            let (to, acts) = next(role, event);
            (role, event, to, acts)
        })
    })
}

const fn may_hold_vips(role: Role) -> bool {
    matches!(role, Role::Promoting | Role::Active | Role::Demoting)
}

fn position(acts: &[Act], wanted: Act) -> Option<usize> {
    acts.iter().position(|act| *act == wanted)
}

#[test]
fn the_printed_page_is_the_golden_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/pair.md");
    let printed = Table.to_string();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &printed).expect("writes the golden page");
    }
    let golden = std::fs::read_to_string(path).expect("reads the golden page");
    assert!(printed == golden, "the table changed: run UPDATE=1 and review the diff\n{printed}");
}

#[test]
fn every_event_is_listed_once() {
    for (index, event) in Event::ALL.iter().enumerate() {
        assert!(!Event::ALL[..index].contains(event), "{event:?} twice");
    }
}

#[test]
fn the_epoch_is_on_disk_before_addresses_or_database_move() {
    for (role, event, to, acts) in cells() {
        let enters = !may_hold_vips(role) && may_hold_vips(to);
        if enters {
            assert_eq!(acts.first(), Some(&Act::RaiseEpoch), "{role} {event:?}");
        }
    }
}

#[test]
fn nobody_takes_over_without_promoting() {
    for (role, event, to, acts) in cells() {
        if to == Role::Promoting && role != to {
            let promotes = acts.contains(&Act::Promote) || acts.contains(&Act::CatchUpAndPromote);
            assert!(promotes && acts.contains(&Act::HoldWrites), "{role} {event:?}");
        }
        if to == Role::Active && role != to {
            let by_right = event == Event::Promoted || acts.contains(&Act::Reopen);
            assert!(by_right, "{role} {event:?}");
        }
    }
}

#[test]
fn leaving_the_serving_roles_drops_the_addresses() {
    for (role, event, to, acts) in cells() {
        if may_hold_vips(role) && !may_hold_vips(to) {
            assert!(acts.contains(&Act::DropVips), "{role} {event:?}");
        }
    }
}

#[test]
fn writes_are_held_before_addresses_are_dropped() {
    for (role, event, _, acts) in cells() {
        let Some(drop) = position(acts, Act::DropVips) else { continue };
        let hold = position(acts, Act::HoldWrites);
        // Demoting holds writes since it began; a promotion that ends never let any flow.
        let held_before = matches!(role, Role::Demoting | Role::Promoting);
        assert!(held_before || hold.is_some_and(|hold| hold < drop), "{role} {event:?}");
    }
}

#[test]
fn a_host_that_waits_takes_no_address_from_silence_alone() {
    for role in [Role::Joining, Role::Refused] {
        for event in [Event::PeerGone, Event::PeerResigned] {
            assert_eq!(next(role, event), (role, &[][..]), "{role} {event:?}");
        }
    }
}

#[test]
fn after_a_stall_nobody_serves_and_nothing_heard_before_counts() {
    for role in ROLES {
        let (to, acts) = next(role, Event::Stalled);
        assert!(!may_hold_vips(to) && acts.contains(&Act::ListenAgain), "{role}");
    }
}

#[test]
fn a_newer_source_is_never_resisted() {
    for role in [Role::Promoting, Role::Active] {
        let (to, acts) = next(role, Event::PeerServes);
        assert_eq!(to, Role::Joining);
        assert!(acts.contains(&Act::Fence) && acts.contains(&Act::DropVips));
    }
}

#[test]
fn the_operator_can_end_every_role() {
    for role in ROLES {
        let (to, acts) = next(role, Event::Terminated);
        let on_the_way = to == Role::Demoting;
        assert!(on_the_way || acts.contains(&Act::Leave), "{role}");
    }
}
