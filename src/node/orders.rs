//! Standing orders: hold (no role moves by itself), maintenance (this host takes none), and which
//! host's php-fpm is spared.
//!
//! In: the operator's verbs, the peer's beacons. Out: orders on disk; why a takeover waits.
//! Must not: keep a host from yielding: what protects data is done in spite of a hold.
//! Read first: `wire::Orders`.

use std::time::Duration;

use super::judge::Found;
use super::{HANDOVER_LIMIT, LAG_PATIENCE, Node, Persistent};
use crate::console::finding::HostTrouble;
use crate::console::message::Response;
use crate::console::note::Note;
use crate::pair::{Event, Role};
use crate::peer::Report;
use crate::time::Instant;
use crate::wire::{Hold, HostId, Orders};

/// How long an operator's force waits for a database that is being closed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);

pub(super) const IN_MAINTENANCE: &str =
    "this host is in maintenance: `tandem maintenance off` ends it";

impl Node {
    pub(super) const fn is_held(&self) -> bool {
        self.persistent.orders.hold.is_on
    }

    pub(super) const fn is_ordered_to_wait(&self) -> bool {
        self.is_held() || self.persistent.orders.in_maintenance
    }

    /// A database that a former run left open is closed before anything is taken, forced or not.
    pub(super) fn closes_first(&self, now: Instant) -> bool {
        !self.is_fenced && !self.is_free() && now.since(self.role_since) < CLOSE_PATIENCE
    }

    fn order(&mut self, now: Instant, orders: Orders) {
        self.persist(Persistent { orders, ..self.persistent });
        self.peer.hurry(now);
    }

    /// A hold is of the pair: the peer's order counts here too, if it is the later one.
    pub(super) fn hear_hold(&mut self, now: Instant) {
        let Some(theirs) = self.peer.report().map(|report| report.orders.hold) else { return };
        if theirs > self.persistent.orders.hold {
            self.order(now, Orders { hold: theirs, ..self.persistent.orders });
        }
    }

    /// Both fronts use both hosts' php-fpm, so a drain is of the pair, as a hold is.
    pub(super) fn hear_php_drain(&mut self, now: Instant) {
        let Some(theirs) = self.peer.report().map(|report| report.php_drain) else { return };
        let mut php_drain = self.persistent.php_drain;
        for (mine, theirs) in php_drain.iter_mut().zip(theirs) {
            *mine = theirs.max(*mine);
        }
        self.order_php_drain(now, php_drain);
    }

    fn order_php_drain(&mut self, now: Instant, php_drain: [Hold; 2]) {
        if php_drain != self.persistent.php_drain {
            self.persist(Persistent { php_drain, ..self.persistent });
            self.peer.hurry(now);
        }
    }

    pub(super) fn ask_php_drain(&mut self, now: Instant, client: u64, name: &str, is_on: bool) {
        let names = HostId::ALL.map(|host| self.config.host(host).name.clone());
        let Some(host) = HostId::ALL.into_iter().find(|host| names[host.index()] == name) else {
            let why = format!("there is no host {name:?}: {} and {} are", names[0], names[1]);
            return self.refuse(client, why);
        };
        let mut php_drain = self.persistent.php_drain;
        if is_on && php_drain[host.other().index()].is_on {
            let other = &names[host.other().index()];
            let why = format!("{other} is drained: `tandem php on {other}` comes first");
            return self.refuse(client, why);
        }
        let order = &mut php_drain[host.index()];
        if order.is_on != is_on {
            *order = Hold { number: order.number + 1, is_on };
        }
        self.order_php_drain(now, php_drain);
        let reach = if self.fresh(now).is_some() {
            "for both fronts".to_owned()
        } else {
            format!("for the front here, and for the one of {} once it is heard", self.peer_name())
        };
        let what = match is_on {
            true => format!(
                "php-fpm of {name} ends what it has and gets nothing new {reach}, until \
                 `tandem php on {name}`"
            ),
            false => format!("php-fpm of {name} gets its share again {reach}"),
        };
        self.reply(client, Response::Done(what));
    }

    /// The peer, who is the one to begin, declines what was asked for here.
    pub(super) fn hear_refusal(&mut self) {
        let declined = self.peer.report().and_then(|report| report.declined);
        if declined.is_some() && declined == self.operator.wish {
            let name = self.peer_name();
            let why = format!("{name} cannot hand over now: `tandem status` there says why");
            self.tell_operators(Response::Refused(why), true);
        }
    }

    pub(super) fn ask_hold(&mut self, now: Instant, client: u64, is_on: bool) {
        let hold = self.persistent.orders.hold;
        if hold.is_on != is_on {
            let hold = Hold { number: hold.number + 1, is_on };
            self.order(now, Orders { hold, ..self.persistent.orders });
        }
        let name = self.peer_name();
        let reach = if self.fresh(now).is_some() {
            "on both hosts".to_owned()
        } else {
            format!("here, and on {name} once it is heard")
        };
        let what = match is_on {
            true => format!("roles stay where they are {reach}, until `tandem hold off`"),
            false => format!("roles follow what happens {reach}"),
        };
        self.reply(client, Response::Done(what));
    }

    pub(super) fn ask_maintenance(&mut self, now: Instant, client: u64, is_on: bool) {
        let orders = self.persistent.orders;
        let is_serving = match self.role {
            Role::Active => true,
            Role::Promoting | Role::Demoting if is_on => {
                let why = "the roles are changing: ask again in a moment".to_owned();
                return self.refuse(client, why);
            }
            Role::Promoting | Role::Demoting => false,
            Role::Joining | Role::Standby | Role::Refused => false,
        };
        if !(is_on && is_serving) {
            self.operator.wants_maintenance = false;
            self.order(now, Orders { in_maintenance: is_on, ..orders });
            let what = match is_on {
                true => "this host takes no role until `tandem maintenance off`",
                false => "this host takes part again",
            };
            return self.reply(client, Response::Done(what.to_owned()));
        }
        if let Some(why) = self.why_no_handover(now) {
            return self.refuse(client, format!("{why}, and this host serves"));
        }
        self.operator.wants_maintenance = true;
        self.operator.waiting.push((client, now));
        let why = "for maintenance of this host".to_owned();
        self.pending.push_back((Event::SwitchoverAsked, why));
    }

    /// The role was given away for it.
    pub(super) fn begin_wanted_maintenance(&mut self) {
        if std::mem::take(&mut self.operator.wants_maintenance) {
            let orders = Orders { in_maintenance: true, ..self.persistent.orders };
            self.persist(Persistent { orders, ..self.persistent });
        }
    }

    /// What is found makes this host serve, if no standing order is against it; else it is said
    /// what waits.
    pub(super) fn unless_ordered(&mut self, found: Found) -> Option<Found> {
        let against = if self.persistent.orders.in_maintenance {
            "this host is in maintenance (`tandem maintenance off`)"
        } else if self.is_held() {
            "roles are held (`tandem hold off`; `tandem failover --force` serves with the data of \
             this host)"
        } else {
            return Some(found);
        };
        self.wait_for(format!("{}, and {against}", found.1));
        None
    }

    /// Nobody serves: the last source does not take a role, it goes on with its own.
    pub(super) fn unless_ordered_to_wait(&mut self, found: Found) -> Option<Found> {
        if self.persistent.was_source && !self.persistent.orders.in_maintenance {
            return Some(found);
        }
        self.unless_ordered(found)
    }

    pub(super) fn find_orders(&self, now: Instant) -> Vec<HostTrouble> {
        let peer = self.fresh(now).filter(|peer| peer.orders.in_maintenance);
        let hold = self.is_held().then_some(HostTrouble::Held);
        let own = self.persistent.orders.in_maintenance.then_some(&self.config.host(self.me).name);
        let other = peer.map(|_| &self.config.host(self.me.other()).name);
        let maintenance = [own, other].into_iter().flatten();
        let maintenance = maintenance.map(|name| HostTrouble::Maintenance { name: name.clone() });
        hold.into_iter().chain(maintenance).collect()
    }

    /// The peer's operator asked for the roles to be exchanged.
    pub(super) fn judge_wish(&mut self, now: Instant, peer: &Report) -> Option<Found> {
        if let Some(wish) = peer.wish
            && self.operator.handled_wish != Some(wish)
        {
            let obstacle = self.why_no_handover(now);
            if obstacle.is_some() && peer.database.is_replicating && is_far_behind(peer) {
                let begun = self.operator.wish_behind.filter(|(number, _)| *number == wish);
                let (_, since) = *self.operator.wish_behind.insert(begun.unwrap_or((wish, now)));
                if now.since(since) < LAG_PATIENCE {
                    return None;
                }
            }
            self.operator.handled_wish = Some(wish);
            return match obstacle {
                Some(why) => {
                    self.operator.declined = Some(wish);
                    self.peer.hurry(now);
                    self.note(Note::HandoverFailed { why });
                    None
                }
                None => Some((Event::SwitchoverAsked, format!("asked on {}", self.peer_name()))),
            };
        }
        None
    }

    /// Why this host, as Active, does not begin a planned handover.
    pub(super) fn why_no_handover(&self, now: Instant) -> Option<String> {
        if self.has_foreign_peer() {
            return Some(format!(
                "{} runs keepalived, whose database is not ours to promote: promote it, then end \
                 tandem here",
                self.peer_name()
            ));
        }
        let name = self.peer_name();
        let Some(peer) = self.fresh(now) else {
            return Some(format!("{name} is silent"));
        };
        if peer.role != Role::Standby {
            return Some(format!("{name} is {}, not standby", peer.role));
        }
        if peer.orders.in_maintenance {
            return Some(format!("{name} is in maintenance"));
        }
        if !peer.database.is_replicating {
            return Some(format!("the database of {name} does not replicate"));
        }
        match peer.database.lag_seconds {
            Some(_) if !is_far_behind(peer) => None,
            Some(lag) => Some(format!("the database of {name} is {lag} s behind")),
            None => Some(format!("how far the database of {name} is behind is not known")),
        }
    }
}

/// More than can be caught up with while the roles are exchanged.
fn is_far_behind(peer: &Report) -> bool {
    peer.database.lag_seconds.is_some_and(|lag| lag > HANDOVER_LIMIT.as_secs() / 2)
}
