//! Updates of a pair of appliances: which build each host runs, and one host's order to the other.
//!
//! In: this host's build, an operator's order, the peer's report. Out: an order to take a build,
//! words. Must not: decide which build is good (the host that boots it does), move a role.
//! Read first: cli/update.rs, which leads an update of both; os/update.rs.

use super::{Node, Output};
use crate::console::message::Response;
use crate::console::note::Note;
use crate::console::status::BuildStatus;
use crate::pair::Role;
use crate::peer::{Build, UpdateOrder};
use crate::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Updates {
    /// What this host runs; 0 where it is no appliance.
    image: Build,
    /// What the peer is to take, until another run of its daemon is heard.
    order: Option<UpdateOrder>,
    /// The peer's last order, and whether it came to nothing here.
    handled: Option<u64>,
    failed: Option<u64>,
}

impl Node {
    pub(super) const fn set_image(&mut self, image: Build) {
        self.updates.image = image;
    }

    /// An operator lets the other host take a build.
    pub(super) fn ask_peer_update(&mut self, now: Instant, client: u64, place: &str) {
        let name = self.peer_name();
        let peer = self.fresh(now).map(|peer| (peer.role, peer.build.built, peer.boot_id));
        let response = match (self.role, peer, place.try_into()) {
            (Role::Active, Some((Role::Standby, built, run)), Ok(place)) if built > 0 => {
                let id = self.boot_id ^ now.as_nanos();
                self.updates.order = Some(UpdateOrder { id, run, place });
                self.peer.hurry(now);
                Response::Done(format!("{name} takes it"))
            }
            (Role::Active, Some((Role::Standby, 0, _)), _) => {
                Response::Refused(format!("{name} is no appliance"))
            }
            (Role::Active, Some((Role::Standby, ..)), _) => {
                Response::Refused(format!("{place:?} is too long an address"))
            }
            (Role::Active, Some((role, ..)), _) => {
                Response::Refused(format!("{name} is {role}: both hosts have to be well"))
            }
            (Role::Active, None, _) => Response::Refused(format!("{name} is silent")),
            (role, ..) => Response::Refused(format!("this host is {role}: say it on {name}")),
        };
        self.reply(client, response);
    }

    /// What this host tells of it.
    pub(super) fn report_update(&self) -> (Build, Option<UpdateOrder>, Option<u64>) {
        (self.updates.image, self.updates.order.clone(), self.updates.failed)
    }

    /// The peer's order is taken once; ours is over when the peer has started anew, or says that
    /// it came to nothing.
    pub(super) fn hear_update(&mut self) {
        let Some(peer) = self.peer.report() else { return };
        let (run, failed, order) = (peer.boot_id, peer.update_failed, peer.update.clone());
        let is_over = |order: &UpdateOrder| run != order.run || failed == Some(order.id);
        if self.updates.order.as_ref().is_some_and(is_over) {
            self.updates.order = None;
        }
        let is_new =
            |it: &UpdateOrder| it.run == self.boot_id && Some(it.id) != self.updates.handled;
        let Some(order) = order.filter(is_new) else { return };
        self.updates.handled = Some(order.id);
        if self.role == Role::Standby && self.updates.image.built > 0 {
            let place = order.place.as_str().to_owned();
            self.note(Note::Update {
                what: format!("{} has this host take {place}", self.peer_name()),
            });
            self.outputs.push_back(Output::TakeUpdate { id: order.id, place });
        } else {
            self.update_failed(order.id, "this host does not stand by");
        }
    }

    /// It came to nothing.
    pub(super) fn update_failed(&mut self, id: u64, why: &str) {
        self.updates.failed = Some(id);
        self.note(Note::UpdateTrouble { what: why.to_owned() });
    }

    pub(super) fn build_status(&self, now: Instant) -> BuildStatus {
        let peer = self.fresh(now);
        BuildStatus {
            built: self.updates.image.built,
            is_on_trial: self.updates.image.is_on_trial,
            peer_built: peer.map_or(0, |peer| peer.build.built),
            is_peer_on_trial: peer.is_some_and(|peer| peer.build.is_on_trial),
            is_peer_ordered: self.updates.order.is_some(),
        }
    }
}
