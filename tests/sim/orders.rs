//! Operators: what they ask for at good and bad moments, and whether it is kept.
//!
//! In: faults of the kinds that are an operator's, roles that change. Out: requests to the nodes.
//! Must not: leave an order standing after `heal_all`. Read first: src/node/orders.rs.

use std::time::Duration;

use tandem::console::message::Request;
use tandem::node::Input;
use tandem::wire::{HostId, Orders};

use super::faults::Kind;
use super::world::{Event, World};

/// Between two attempts to take orders back from hosts that do not run.
const LIFT_INTERVAL: Duration = Duration::from_secs(2);

impl World {
    pub fn operate(&mut self, host: HostId, kind: Kind, client: u64) {
        self.checks.last_operated_at = Some(self.now);
        match kind {
            Kind::Force => self.ask(host, client, Request::FailoverForce),
            Kind::Hold => self.ask(host, client, Request::Hold(true)),
            Kind::Maintenance => self.ask(host, client, Request::Maintenance(true)),
            _ => self.ask(host, client, Request::Switchover),
        }
    }

    fn ask(&mut self, host: HostId, client: u64, request: Request) {
        self.deliver(host, Input::Control { client, request, glance: Box::default() });
    }

    fn orders(&self, host: HostId) -> Orders {
        self.hosts[host.index()].disk.orders
    }

    pub fn are_ordered(&self) -> bool {
        HostId::ALL.iter().any(|host| {
            let Orders { in_maintenance, hold } = self.orders(*host);
            in_maintenance || hold.is_on
        })
    }

    /// Until every host has heard it.
    pub fn lift_orders(&mut self) {
        for host in HostId::ALL {
            let Orders { in_maintenance, hold } = self.orders(host);
            if in_maintenance {
                self.ask(host, 0, Request::Maintenance(false));
            }
            if hold.is_on {
                self.ask(host, 0, Request::Hold(false));
            }
        }
        if self.are_ordered() {
            self.after(LIFT_INTERVAL, Event::LiftOrders);
        }
    }

    /// O1: a host takes no role against a standing order, except by the operator's own word.
    pub fn orders_kept(&mut self, host: HostId, why: &str) {
        let Orders { in_maintenance, hold } = self.orders(host);
        let was_source = self.hosts[host.index()].disk.was_source;
        let by_hand = why.starts_with("forced") || why.ends_with("hands over");
        if !by_hand && (in_maintenance || (hold.is_on && !was_source)) {
            let order = if in_maintenance { "in maintenance" } else { "held" };
            self.fail("O1 orders_kept", format!("{}, {order}, takes over", self.name(host)));
        }
    }
}
