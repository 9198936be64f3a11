//! The two-host policy: who serves. One total table, role by event.
//!
//! In: the role and an event. Out: the next role and what to do about it.
//! Must not: look at anything else. Guards (epochs, positions, timers) are computed by `node`
//! before the table and arrive as different events. Read first: design section 5; scenario.md.
//! `tests/pair_table.rs` prints this table and compares it with `tests/golden/pair.md`.
//!
//! ```text
//!            Followed               PeerGone, PeerResigned, PeerClosed
//!  Joining ------------> Standby ------------------------------------> Promoting
//!   ^  |  Diverged          ^  (Outranked: Joining)                        | Promoted
//!   |  +-------> Refused    +--- CatchUpFailed ---                         v
//!   |                                                                   Active
//!   +---- WebDrained, ClosedToLeave ---- Demoting <--- SwitchoverAsked ----+
//!   +---- PeerServes, Outranked, Stalled, Isolated, DatabaseLost ----------+
//! ```

use std::fmt;

pub use crate::wire::Role;

/// What happened: a fact, in the past tense or as a standing condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The peer is Active, and by right: its epoch is newer, or we do not serve at all.
    PeerServes,
    /// The peer, a plain keepalived, serves: it says so in VRRP and nothing else.
    ForeignServes,
    /// The peer serves too, with an older epoch (or the tie decided for us): it will step down.
    PeerServesWrongly,
    /// The peer does not serve, and has what we lack: it did after us (its epoch is newer), or our
    /// database is not open yet. Or it took the addresses in the middle of our handover.
    Outranked,
    /// The peer does not serve, its epoch is newer, and it has nothing that we lack.
    EpochOvertaken,
    /// The peer began a planned handover to us and holds its writes.
    PeerHandsOver,
    /// The peer's database is closed for us and its last position is known.
    PeerClosed,
    /// The peer refused or gave up the handover that we began.
    PeerRefused,
    /// The peer has let go of the virtual addresses.
    PeerReleased,
    /// The peer said that it leaves (priority 0, or a beacon).
    PeerResigned,
    /// The peer is silent on every path and nobody answers for the virtual addresses.
    PeerGone,
    /// Nobody serves, both hosts know each other, and this one is to serve.
    ElectionWon,
    /// Nobody serves, the peer is silent since the start, and this host was the last source.
    AloneEntitled,
    /// Our database replicates from the peer.
    Followed,
    /// Our database has transactions that the peer's lacks.
    Diverged,
    /// Replication from the peer stopped.
    ReplicaStopped,
    /// Our database is promoted: drained, and open for writes.
    Promoted,
    /// The promotion failed; nothing that was received is lost, it can be tried again.
    PromotionFailed,
    /// We could not reach the position at which the peer closed.
    CatchUpFailed,
    /// Our database is closed, for a planned handover.
    Closed,
    /// Our database is closed (or cannot be), and we go in any case.
    ClosedToLeave,
    /// Our database could not be closed for a planned handover.
    CloseFailed,
    /// A planned handover took too long and the peer has not begun.
    HandoverOverdue,
    /// No request is in flight on the virtual addresses.
    WebDrained,
    /// Our database is down or hung, and the peer's is healthy.
    DatabaseLost,
    /// One of our links has no carrier, and the peer has both.
    LinkLost,
    /// No link has carrier, or the peer and every witness are silent.
    Isolated,
    /// The loop did not run for so long that the peer may have taken over.
    Stalled,
    /// The peer, a plain keepalived of lower priority, serves, and the configuration takes back.
    Preempted,
    /// This host is ill for a while, though it serves, and the peer is well.
    Ailing,
    /// The operator wants the roles exchanged.
    SwitchoverAsked,
    /// The operator wants this host to serve, whatever the peer has.
    FailoverForced,
    /// The daemon was told to end.
    Terminated,
}

/// What to do: an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Close the database whatever it is, and end its clients.
    Fence,
    /// Make our database a replica of the peer's.
    Follow,
    /// Drain what was received, then open our database.
    Promote,
    /// Reach the peer's closing position, then as `Promote`.
    CatchUpAndPromote,
    /// Let writes end, close our database, note its position.
    Close,
    /// Open our database again: undo of `Close`.
    Reopen,
    /// Write a higher epoch to disk before anything of it is seen.
    RaiseEpoch,
    /// Write to disk that the peer's epoch rules.
    RecordStandby,
    /// Write to disk that our data are not the service's any more.
    RecordRefused,
    /// Bind the virtual addresses and announce them.
    TakeVips,
    DropVips,
    /// Say so on the wire: priority 0.
    Resign,
    /// Repeat advertisement and announcements: somebody else claims the addresses.
    Announce,
    /// Statements for the source wait.
    HoldWrites,
    /// Tell the peer that the database is closed and where.
    OfferHandover,
    /// Tell the peer that we do not take over.
    RefuseHandover,
    /// Answer what is in flight on the virtual addresses, take nothing new.
    DrainWeb,
    /// Trust no timer before something was heard.
    ListenAgain,
    /// Pass the wish to the peer, who is the one to begin.
    AskPeer,
    /// End the daemon.
    Leave,
}

type Next = (Role, &'static [Act]);

const TAKE_OVER: Next =
    (Role::Promoting, &[Act::RaiseEpoch, Act::HoldWrites, Act::TakeVips, Act::Promote]);
const YIELD: Next = (Role::Joining, &[Act::HoldWrites, Act::DropVips, Act::Fence]);
const GIVE_UP_HANDOVER: Next = (Role::Active, &[Act::Reopen]);

/// The table.
#[must_use]
pub const fn next(role: Role, event: Event) -> Next {
    match role {
        Role::Joining => joining(event),
        Role::Standby => standby(event),
        Role::Promoting => promoting(event),
        Role::Active => active(event),
        Role::Demoting => demoting(event),
        Role::Refused => refused(event),
    }
}

const fn joining(event: Event) -> Next {
    use Event as E;
    const STAY: Role = Role::Joining;
    match event {
        E::PeerServes => (STAY, &[Act::Follow]),
        E::Followed => (Role::Standby, &[Act::RecordStandby]),
        // Nothing is known of its database: ours stays closed, and as it is.
        E::ForeignServes => (Role::Standby, &[]),
        E::Diverged => (Role::Refused, &[Act::Fence, Act::RecordRefused]),
        E::ElectionWon | E::AloneEntitled | E::FailoverForced => TAKE_OVER,
        E::Stalled => (STAY, &[Act::Fence, Act::ListenAgain]),
        E::Terminated => (STAY, &[Act::Leave]),
        // Silence entitles only the last source; the others wait for the peer or for the operator.
        E::PeerGone | E::PeerResigned => (STAY, &[]),
        E::PeerServesWrongly | E::PeerHandsOver | E::PeerClosed | E::PeerRefused => (STAY, &[]),
        E::Outranked | E::EpochOvertaken => (STAY, &[]),
        E::PeerReleased | E::ReplicaStopped | E::Promoted | E::PromotionFailed => (STAY, &[]),
        E::CatchUpFailed | E::Closed | E::ClosedToLeave | E::CloseFailed => (STAY, &[]),
        E::HandoverOverdue | E::WebDrained | E::DatabaseLost | E::LinkLost => (STAY, &[]),
        E::Isolated | E::SwitchoverAsked | E::Preempted | E::Ailing => (STAY, &[]),
    }
}

const fn standby(event: Event) -> Next {
    use Event as E;
    const STAY: Role = Role::Standby;
    match event {
        E::PeerGone | E::PeerResigned | E::FailoverForced | E::Preempted => TAKE_OVER,
        E::PeerHandsOver => (STAY, &[Act::HoldWrites]),
        // The peer still answers requests in flight: its addresses come with PeerReleased.
        E::PeerClosed => {
            (Role::Promoting, &[Act::RaiseEpoch, Act::HoldWrites, Act::CatchUpAndPromote])
        }
        E::ReplicaStopped => (STAY, &[Act::Follow]),
        E::Diverged => (Role::Refused, &[Act::Fence, Act::RecordRefused]),
        E::Stalled => (STAY, &[Act::ListenAgain]),
        E::SwitchoverAsked => (STAY, &[Act::AskPeer]),
        E::Terminated => (STAY, &[Act::Leave]),
        // Neither serves: the election is won by whoever has more.
        E::Outranked => (Role::Joining, &[]),
        E::PeerServes | E::PeerServesWrongly | E::PeerRefused | E::PeerReleased => (STAY, &[]),
        E::EpochOvertaken => (STAY, &[]),
        E::ElectionWon | E::AloneEntitled | E::Followed | E::Promoted => (STAY, &[]),
        E::PromotionFailed | E::CatchUpFailed | E::Closed | E::ClosedToLeave => (STAY, &[]),
        E::CloseFailed | E::HandoverOverdue | E::WebDrained | E::DatabaseLost => (STAY, &[]),
        E::LinkLost | E::Isolated | E::ForeignServes | E::Ailing => (STAY, &[]),
    }
}

const fn promoting(event: Event) -> Next {
    use Event as E;
    const STAY: Role = Role::Promoting;
    match event {
        E::Promoted => (Role::Active, &[]),
        // The web needs nothing more than the addresses; writes wait for a promotion that works.
        E::PromotionFailed => (STAY, &[Act::Promote]),
        // The addresses may have come meanwhile: the peer fell silent, or let go of them.
        E::CatchUpFailed => (Role::Standby, &[Act::DropVips, Act::RefuseHandover, Act::Follow]),
        E::PeerReleased | E::PeerGone | E::PeerResigned => (STAY, &[Act::TakeVips]),
        E::PeerServes | E::Outranked => YIELD,
        E::EpochOvertaken => (STAY, &[Act::RaiseEpoch]),
        E::PeerServesWrongly => (STAY, &[Act::Announce]),
        E::Stalled => {
            (Role::Joining, &[Act::HoldWrites, Act::DropVips, Act::Fence, Act::ListenAgain])
        }
        E::Isolated => YIELD,
        E::Terminated => (Role::Joining, &[Act::DropVips, Act::Resign, Act::Leave]),
        E::PeerHandsOver | E::PeerClosed | E::PeerRefused | E::ElectionWon => (STAY, &[]),
        E::AloneEntitled | E::Followed | E::Diverged | E::ReplicaStopped => (STAY, &[]),
        E::Closed | E::ClosedToLeave | E::CloseFailed | E::HandoverOverdue => (STAY, &[]),
        E::WebDrained | E::DatabaseLost | E::LinkLost | E::SwitchoverAsked => (STAY, &[]),
        E::FailoverForced | E::ForeignServes | E::Preempted | E::Ailing => (STAY, &[]),
    }
}

const fn active(event: Event) -> Next {
    use Event as E;
    const STAY: Role = Role::Active;
    match event {
        E::SwitchoverAsked | E::Ailing | E::LinkLost | E::Terminated => {
            (Role::Demoting, &[Act::HoldWrites, Act::Close])
        }
        E::PeerReleased | E::PeerGone | E::PeerResigned => (STAY, &[Act::TakeVips]),
        E::PeerServes | E::Outranked => YIELD,
        E::EpochOvertaken => (STAY, &[Act::RaiseEpoch]),
        E::PeerServesWrongly => (STAY, &[Act::Announce]),
        E::DatabaseLost => {
            (Role::Joining, &[Act::HoldWrites, Act::DropVips, Act::Resign, Act::Fence])
        }
        E::Isolated => YIELD,
        E::Stalled => {
            (Role::Joining, &[Act::HoldWrites, Act::DropVips, Act::Fence, Act::ListenAgain])
        }
        E::PeerHandsOver | E::PeerClosed | E::PeerRefused | E::ElectionWon => (STAY, &[]),
        E::AloneEntitled | E::Followed | E::Diverged | E::ReplicaStopped => (STAY, &[]),
        E::Promoted | E::PromotionFailed | E::CatchUpFailed | E::Closed => (STAY, &[]),
        E::ClosedToLeave | E::CloseFailed | E::HandoverOverdue | E::WebDrained => (STAY, &[]),
        E::FailoverForced | E::ForeignServes | E::Preempted => (STAY, &[]),
    }
}

const fn demoting(event: Event) -> Next {
    use Event as E;
    const STAY: Role = Role::Demoting;
    match event {
        E::Closed => (STAY, &[Act::OfferHandover]),
        E::PeerServes => (STAY, &[Act::DrainWeb]),
        E::WebDrained => (Role::Joining, &[Act::DropVips]),
        E::ClosedToLeave => (Role::Joining, &[Act::DropVips, Act::Resign]),
        E::CloseFailed | E::HandoverOverdue | E::PeerRefused => GIVE_UP_HANDOVER,
        // The peer died before it was open: nobody else serves.
        E::PeerGone | E::PeerResigned => GIVE_UP_HANDOVER,
        E::Isolated | E::DatabaseLost | E::Outranked => YIELD,
        E::Stalled => {
            (Role::Joining, &[Act::HoldWrites, Act::DropVips, Act::Fence, Act::ListenAgain])
        }
        // The handover under way turns into a leave; node remembers it.
        E::Terminated | E::LinkLost => (STAY, &[]),
        E::PeerServesWrongly | E::PeerHandsOver | E::PeerClosed | E::PeerReleased => (STAY, &[]),
        E::EpochOvertaken => (STAY, &[]),
        E::ElectionWon | E::AloneEntitled | E::Followed | E::Diverged => (STAY, &[]),
        E::ReplicaStopped | E::Promoted | E::PromotionFailed | E::CatchUpFailed => (STAY, &[]),
        E::SwitchoverAsked | E::FailoverForced | E::ForeignServes => (STAY, &[]),
        E::Preempted | E::Ailing => (STAY, &[]),
    }
}

const fn refused(event: Event) -> Next {
    use Event as E;
    const STAY: Role = Role::Refused;
    match event {
        // Looked at again now and then: an operator may have mended it.
        E::PeerServes => (STAY, &[Act::Follow]),
        E::Followed => (Role::Standby, &[Act::RecordStandby]),
        E::ElectionWon | E::FailoverForced => TAKE_OVER,
        E::Stalled => (STAY, &[Act::ListenAgain]),
        E::Terminated => (STAY, &[Act::Leave]),
        E::PeerServesWrongly | E::PeerHandsOver | E::PeerClosed | E::PeerRefused => (STAY, &[]),
        E::Outranked | E::EpochOvertaken => (STAY, &[]),
        E::PeerReleased | E::PeerResigned | E::PeerGone => (STAY, &[]),
        E::AloneEntitled | E::Diverged | E::ReplicaStopped | E::Promoted => (STAY, &[]),
        E::PromotionFailed | E::CatchUpFailed | E::Closed | E::ClosedToLeave => (STAY, &[]),
        E::CloseFailed | E::HandoverOverdue | E::WebDrained | E::DatabaseLost => (STAY, &[]),
        E::LinkLost | E::Isolated | E::SwitchoverAsked | E::ForeignServes => (STAY, &[]),
        E::Preempted | E::Ailing => (STAY, &[]),
    }
}

impl Event {
    /// Every event, in the order of the table.
    pub const ALL: [Self; 33] = [
        Self::PeerServes,
        Self::ForeignServes,
        Self::PeerServesWrongly,
        Self::Outranked,
        Self::EpochOvertaken,
        Self::PeerHandsOver,
        Self::PeerClosed,
        Self::PeerRefused,
        Self::PeerReleased,
        Self::PeerResigned,
        Self::PeerGone,
        Self::ElectionWon,
        Self::AloneEntitled,
        Self::Followed,
        Self::Diverged,
        Self::ReplicaStopped,
        Self::Promoted,
        Self::PromotionFailed,
        Self::CatchUpFailed,
        Self::Closed,
        Self::ClosedToLeave,
        Self::CloseFailed,
        Self::HandoverOverdue,
        Self::WebDrained,
        Self::DatabaseLost,
        Self::LinkLost,
        Self::Isolated,
        Self::Stalled,
        Self::Preempted,
        Self::Ailing,
        Self::SwitchoverAsked,
        Self::FailoverForced,
        Self::Terminated,
    ];
}

/// Every role, in the order of a host's life.
pub const ROLES: [Role; 6] =
    [Role::Joining, Role::Standby, Role::Promoting, Role::Active, Role::Demoting, Role::Refused];

/// The table as a page that a person reads: one section a role, one line an event that does
/// something.
#[derive(Debug)]
pub struct Table;

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# The pair's table\n\nPrinted from `src/pair.rs`; events that are not named")?;
        writeln!(f, "leave the role as it is and order nothing.")?;
        for role in ROLES {
            writeln!(f, "\n## {role}\n\n| event | next role | orders |\n|---|---|---|")?;
            for event in Event::ALL {
                let (next, acts) = next(role, event);
                if next == role && acts.is_empty() {
                    continue;
                }
                let orders: Vec<_> = acts.iter().map(|act| format!("{act:?}")).collect();
                writeln!(f, "| {event:?} | {next} | {} |", orders.join(", "))?;
            }
        }
        Ok(())
    }
}
