//! Virtual addresses, desired and observed: what to set, refresh, repair and remove.
//!
//! In: whether this host should hold them, what the kernel shows. Out: orders for the kernel.
//! Must not: send ARP (node announces), decide who holds them.
//! Read first: facts/vrrp.md 3.6, 3.7 and 6.2.
//!
//! The kernel holds the lease: an address is set with a lifetime of 2 s and refreshed twice a
//! second, so that a killed, stopped or hung daemon loses it before a peer may take over (its
//! master-down interval less one advertisement interval is 2.6 s).

use std::time::Duration;

use crate::time::Instant;
use crate::units::IpCidr;
use crate::wire::DeviceId;

/// Lifetime of a virtual address in the kernel; measured 2.04 to 2.25 s for 2 (facts 6.2).
pub const LEASE: Duration = Duration::from_secs(2);
/// How often the lease is refreshed.
pub const REFRESH_INTERVAL: Duration = Duration::from_millis(500);
/// Repairs of one address that somebody else keeps deleting, in one refresh interval.
const REPAIRS_MAX: u32 = 3;

/// A virtual address and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    pub device: DeviceId,
    pub address: IpCidr,
    /// IPv4 only.
    pub label: Option<String>,
}

/// What to do to the kernel. A set address gets `LEASE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    Set(Vip),
    Remove { device: DeviceId, address: IpCidr },
}

#[derive(Debug)]
struct Address {
    vip: Vip,
    is_observed: bool,
    repairs: u32,
}

impl Address {
    const fn removal(&self) -> Order {
        Order::Remove { device: self.vip.device, address: self.vip.address }
    }
}

#[derive(Debug)]
pub struct Addresses {
    list: Vec<Address>,
    is_desired: bool,
    refresh_at: Instant,
    orders: Vec<Order>,
}

impl Addresses {
    /// Starts by removing every configured address: whatever a killed predecessor left behind.
    #[must_use]
    pub fn new(vips: impl Iterator<Item = Vip>) -> Self {
        let list: Vec<_> =
            vips.map(|vip| Address { vip, is_observed: false, repairs: 0 }).collect();
        let orders = list.iter().map(Address::removal).collect();
        Self { list, is_desired: false, refresh_at: Instant::ZERO, orders }
    }

    pub fn hold(&mut self, now: Instant) {
        self.is_desired = true;
        self.refresh(now);
    }

    pub fn drop_all(&mut self) {
        self.is_desired = false;
        self.orders.clear();
        for address in &mut self.list {
            address.is_observed = false;
            self.orders.push(address.removal());
        }
    }

    #[must_use]
    pub const fn is_desired(&self) -> bool {
        self.is_desired
    }

    /// The kernel shows one of its addresses come or go. Returns whether a held virtual address was
    /// deleted by somebody else (it is put back at once).
    pub fn observe(&mut self, device: DeviceId, address: IpCidr, is_present: bool) -> bool {
        let is_meant = |it: &&mut Address| {
            it.vip.device == device && it.vip.address.address == address.address
        };
        let Some(found) = self.list.iter_mut().find(is_meant) else { return false };
        found.is_observed = is_present;
        let order = match (self.is_desired, is_present) {
            (true, false) if found.repairs < REPAIRS_MAX => {
                found.repairs += 1;
                Order::Set(found.vip.clone())
            }
            (false, true) => Order::Remove { device, address },
            (true, true | false) | (false, false) => return self.is_desired && !is_present,
        };
        self.orders.push(order);
        self.is_desired
    }

    pub fn tick(&mut self, now: Instant) {
        if self.is_desired && now >= self.refresh_at {
            self.refresh(now);
        }
    }

    fn refresh(&mut self, now: Instant) {
        self.refresh_at = now + REFRESH_INTERVAL;
        for address in &mut self.list {
            address.repairs = 0;
            self.orders.push(Order::Set(address.vip.clone()));
        }
    }

    pub fn poll_order(&mut self) -> Option<Order> {
        (!self.orders.is_empty()).then(|| self.orders.remove(0))
    }

    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.is_desired.then_some(self.refresh_at)
    }

    /// The virtual addresses that the kernel shows on this host.
    pub fn held(&self) -> impl Iterator<Item = IpCidr> {
        self.list.iter().filter(|it| it.is_observed).map(|it| it.vip.address)
    }

    pub fn all(&self) -> impl Iterator<Item = (DeviceId, IpCidr)> {
        self.list.iter().map(|it| (it.vip.device, it.vip.address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::LinkId;

    const NOW: Instant = Instant::from_nanos(5_000_000_000);

    fn address() -> IpCidr {
        "192.168.3.150/24".parse().unwrap()
    }

    fn inside() -> DeviceId {
        LinkId::Inside.into()
    }

    fn vip() -> Vip {
        Vip { device: inside(), address: address(), label: None }
    }

    fn addresses() -> Addresses {
        Addresses::new([vip()].into_iter())
    }

    fn drain(addresses: &mut Addresses) -> Vec<Order> {
        std::iter::from_fn(|| addresses.poll_order()).collect()
    }

    const SET: fn() -> Order = || Order::Set(vip());
    const REMOVE: fn() -> Order = || Order::Remove { device: inside(), address: address() };

    #[test]
    fn the_first_act_is_to_hold_no_virtual_address() {
        assert_eq!(drain(&mut addresses()), [REMOVE()]);
    }

    #[test]
    fn a_held_address_is_refreshed_before_its_lease_ends() {
        let mut held = addresses();
        drain(&mut held);
        held.hold(NOW);
        assert_eq!(drain(&mut held), [SET()]);
        held.tick(NOW + REFRESH_INTERVAL / 2);
        assert_eq!(drain(&mut held), []);
        held.tick(held.deadline().unwrap());
        assert_eq!(drain(&mut held), [SET()]);
        assert!(REFRESH_INTERVAL * 3 < LEASE);
    }

    #[test]
    fn a_deleted_address_is_put_back_a_bounded_number_of_times() {
        let mut held = addresses();
        held.hold(NOW);
        drain(&mut held);
        for _ in 0..10 {
            assert!(held.observe(inside(), address(), false), "reported");
        }
        assert_eq!(drain(&mut held).len(), 3);
        held.tick(held.deadline().unwrap());
        assert_eq!(drain(&mut held), [SET()]);
    }

    #[test]
    fn an_address_that_must_not_be_here_is_removed_whenever_it_shows() {
        let mut fenced = addresses();
        drain(&mut fenced);
        assert!(!fenced.observe(inside(), address(), true));
        assert_eq!(drain(&mut fenced), [REMOVE()]);
        let foreign = "192.168.3.100/24".parse().unwrap();
        assert!(!fenced.observe(inside(), foreign, true));
        assert_eq!(drain(&mut fenced), []);
    }

    #[test]
    fn dropping_removes_and_stops_refreshing() {
        let mut held = addresses();
        held.hold(NOW);
        held.drop_all();
        assert_eq!(drain(&mut held), [REMOVE()], "orders to set are forgotten");
        assert_eq!(held.deadline(), None);
    }
}
