//! Limits by client: how many connections one address has, and how often it asks for PHP.
//!
//! In: addresses that come and go, requests, time. Out: whether this one is too many.
//! Must not: grow with the number of clients beyond a bound; trust an address that the client chose
//! itself. Read first: nginx: ngx_http_limit_conn_module, ngx_http_limit_req_module.
//!
//! An IPv6 client counts by its /64: within that it has as many addresses as it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits;
use crate::time::Instant;

/// Requests in a time, as in "10r/s" or "30r/m" (nginx: limit_req_zone ... rate).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Thousandths of a request in a second.
    milli_per_second: u64,
}

/// What a client's next connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Welcome,
    /// Told so, with 503.
    TooMany,
    /// Twice as many as allowed: closed without a word, so that telling costs no more than this.
    Flood,
}

/// Open connections by client, those that were told that they are too many included.
#[derive(Debug)]
pub struct Connections {
    max: usize,
    by_client: BTreeMap<IpAddr, usize>,
}

impl Connections {
    /// `max` of 0 is no limit.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self { max, by_client: BTreeMap::new() }
    }

    /// Another limit; who is here stays, and those who came while there was none are not counted.
    pub const fn configure(&mut self, max: usize) {
        self.max = max;
    }

    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.max > 0
    }

    /// A client's connection is here. It is counted, and has to `leave`, unless it is a flood.
    pub fn enter(&mut self, client: IpAddr) -> Entry {
        let count = self.by_client.entry(network(client)).or_default();
        if *count >= self.max.saturating_mul(2) {
            return Entry::Flood;
        }
        *count += 1;
        if *count > self.max { Entry::TooMany } else { Entry::Welcome }
    }

    pub fn leave(&mut self, client: IpAddr) {
        let client = network(client);
        if let Some(count) = self.by_client.get_mut(&client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_client.remove(&client);
            }
        }
    }
}

/// A leaky bucket for each client, those that asked last.
#[derive(Debug)]
pub struct Requests {
    rate: Option<Rate>,
    /// Thousandths of a request that may be ahead of the rate.
    burst: u64,
    by_client: BTreeMap<IpAddr, Bucket>,
    /// The one that asked longest ago comes first.
    by_age: BTreeSet<(Instant, IpAddr)>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Thousandths of a request ahead of the rate.
    excess: u64,
    asked_at: Instant,
}

/// One request, in thousandths.
const ONE: u64 = 1000;

impl Requests {
    #[must_use]
    pub fn new(rate: Option<Rate>, burst: u32) -> Self {
        let burst = u64::from(burst) * ONE;
        Self { rate, burst, by_client: BTreeMap::new(), by_age: BTreeSet::new() }
    }

    /// Another rate, from each client's next request on.
    pub fn configure(&mut self, rate: Option<Rate>, burst: u32) {
        self.rate = rate;
        self.burst = u64::from(burst) * ONE;
    }

    /// Whether this request is within the rate and burst (nginx: limit_req ... nodelay). One that
    /// is not costs its client nothing.
    pub fn admit(&mut self, now: Instant, client: IpAddr) -> bool {
        let Some(rate) = self.rate else { return true };
        let client = network(client);
        let known = self.by_client.get(&client).copied();
        let excess = known.map_or(0, |bucket| {
            let elapsed = u64::try_from(now.since(bucket.asked_at).as_micros()).unwrap_or(u64::MAX);
            let leaked = elapsed.saturating_mul(rate.milli_per_second) / 1_000_000;
            (bucket.excess + ONE).saturating_sub(leaked)
        });
        if excess > self.burst {
            return false;
        }
        if let Some(bucket) = known {
            self.by_age.remove(&(bucket.asked_at, client));
        } else if self.by_client.len() >= limits::WEB_CLIENTS_MAX
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.by_client.remove(&oldest);
        }
        self.by_client.insert(client, Bucket { excess, asked_at: now });
        self.by_age.insert((now, client));
        true
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}r/m", self.milli_per_second * 60 / ONE)
    }
}

impl Rate {
    /// nginx: a whole number of requests in a second or a minute.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (number, seconds) = match text.strip_suffix("r/s") {
            Some(number) => (number, 1),
            None => (text.strip_suffix("r/m")?, 60),
        };
        let number = number.parse::<u32>().ok().filter(|&number| number > 0)?;
        Some(Self { milli_per_second: (u64::from(number) * ONE / seconds).max(1) })
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("{text:?} is no rate: write \"10r/s\" or \"30r/m\""))
        })
    }
}

fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn at(milliseconds: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(milliseconds)
    }

    #[test]
    fn connections_of_one_client_are_told_and_then_dropped() {
        let mut connections = Connections::new(2);
        let client = ip("192.0.2.1");
        let entries = [(); 5].map(|()| connections.enter(client));
        let told = Entry::TooMany;
        assert_eq!(entries, [Entry::Welcome, Entry::Welcome, told, told, Entry::Flood]);
        assert_eq!(connections.enter(ip("192.0.2.2")), Entry::Welcome, "that is another");
        for _ in 0..3 {
            connections.leave(client);
        }
        assert_eq!(connections.enter(client), Entry::Welcome);
        for client in [client, client, ip("192.0.2.2")] {
            connections.leave(client);
        }
        assert!(connections.by_client.is_empty(), "nobody is left behind");
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let mut connections = Connections::new(1);
        assert_eq!(connections.enter(ip("2001:db8::1")), Entry::Welcome);
        assert_eq!(connections.enter(ip("2001:db8::2")), Entry::TooMany);
        assert_eq!(connections.enter(ip("2001:db8:0:1::1")), Entry::Welcome);
        assert_eq!(connections.enter(ip("::ffff:192.0.2.1")), Entry::Welcome);
        assert_eq!(connections.enter(ip("192.0.2.1")), Entry::TooMany, "the same one, mapped");
    }

    #[test]
    fn requests_beyond_rate_and_burst_are_refused_and_cost_nothing() {
        let mut requests = Requests::new(Rate::parse("10r/s"), 2);
        let client = ip("192.0.2.1");
        let mut admitted =
            |milliseconds| (0..9).filter(|_| requests.admit(at(milliseconds), client)).count();
        assert_eq!(admitted(0), 3);
        assert_eq!(admitted(99), 0);
        assert_eq!(admitted(100), 1);
        assert_eq!(admitted(250), 1, "one and a half");
        assert_eq!(admitted(300), 1);
        assert_eq!(admitted(9000), 3);
        assert!(Requests::new(None, 0).admit(at(0), client));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_oldest() {
        let mut requests = Requests::new(Rate::parse("1r/m"), 0);
        let client = |number: usize| {
            let number = u32::try_from(number).expect("fits");
            IpAddr::from(std::net::Ipv4Addr::from_bits(number))
        };
        for number in 0..=limits::WEB_CLIENTS_MAX {
            let milliseconds = u64::try_from(number).expect("fits");
            assert!(requests.admit(at(milliseconds), client(number)));
        }
        assert_eq!(requests.by_client.len(), limits::WEB_CLIENTS_MAX);
        assert_eq!(requests.by_age.len(), limits::WEB_CLIENTS_MAX);
        let now = at(u64::try_from(limits::WEB_CLIENTS_MAX).expect("fits"));
        assert!(!requests.admit(now, client(1)));
        assert!(requests.admit(now, client(0)), "it was forgotten");
    }

    #[test]
    fn rates_are_read_as_nginx_writes_them() {
        for (text, rate) in [("10r/s", Some("600r/m")), ("30r/m", Some("30r/m"))] {
            assert_eq!(Rate::parse(text).map(|rate| rate.to_string()).as_deref(), rate);
        }
        for text in ["", "10", "10r/h", "0r/s", "-1r/s", "r/s", "1.5r/s", "10 r/s"] {
            assert_eq!(Rate::parse(text), None, "{text:?}");
        }
    }
}
