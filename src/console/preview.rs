//! What an acting verb will do, said before it is asked for.
//!
//! In: a request, the status. Out: a few sentences. Must not: decide whether it may (the node does,
//! and says why not).

use super::message::{Power, Request};
use super::render::{fold, transactions};
use super::status::Status;
use crate::wire::Role;

/// What will happen, on lines of 79 columns; `None` where nothing is lost by doing it unasked.
#[must_use]
pub fn preview(request: &Request, status: &Status) -> Option<Vec<String>> {
    let text = match request {
        Request::Switchover => switchover(status),
        Request::FailoverForce => failover(status),
        Request::Hold(true) => format!(
            "Roles stay where they are on {} and {}, whatever happens, until `hold off`: a host \
             that dies is not replaced.",
            status.host, status.peer.name
        ),
        Request::Maintenance(true) => maintenance(status),
        Request::PhpDrain { host, is_on: true } => format!(
            "php-fpm of {host} ends what it has and gets nothing new, from either front, until \
             `php on {host}`; the other host's does all the work."
        ),
        Request::Reseed => format!(
            "Everything in the database of {} is replaced by a copy of {}'s. A server that \
             clones (MySQL 8.0.17 and later) ends itself in the end and has to be started again, \
             which its init system does.",
            status.host, status.peer.name
        ),
        Request::Power(power) => machine_ends(*power, status),
        Request::WatchdogTest => format!(
            "{} is reset, as if it hung, within 15 s: nothing is told to {} before, and what is \
             on its way here is lost.",
            status.host, status.peer.name
        ),
        Request::Status
        | Request::Rejoin
        | Request::Hold(false)
        | Request::Maintenance(false)
        | Request::Reload
        | Request::PhpDrain { is_on: false, .. }
        | Request::Log { .. }
        | Request::Config
        | Request::Trace { .. }
        | Request::ConsoleLogin { .. }
        | Request::UpdatePeer { .. }
        | Request::UpdateKept => return None,
    };
    Some(fold(&text, ""))
}

/// Who serves, and who will.
fn switchover(status: &Status) -> String {
    let (from, to) = match status.role {
        Role::Active | Role::Demoting => (&status.host, &status.peer.name),
        Role::Joining | Role::Standby | Role::Promoting | Role::Refused => {
            (&status.peer.name, &status.host)
        }
    };
    let vips = all_vips(status);
    format!(
        "{from} gives its role to {to}: writes wait for a moment, {to} becomes the source and \
         {from} its replica, and {vips} move. Transactions that are open are given 0.8 s to end. \
         Whatever does not come to its end in time is undone."
    )
}

fn failover(status: &Status) -> String {
    let peer = &status.peer.name;
    let known = match status.database.missing {
        Some(0) => format!("nothing that {peer} is known to have is missing here"),
        Some(count) => {
            format!("{} of {peer} MISSING HERE will be lost", transactions(count))
        }
        None => format!("what {peer} has more is not known, and will be lost"),
    };
    let heard = match status.peer.role {
        Some(role) => format!("{peer} is heard, and is {role}"),
        None => format!("{peer} is silent"),
    };
    format!(
        "{} serves with the data that it has: {heard}; {known}. {peer} joins as a replica when it \
         comes back, if it has nothing more.",
        status.host
    )
}

fn maintenance(status: &Status) -> String {
    let takes_none = format!("{} takes no role until `maintenance off`", status.host);
    match status.role {
        Role::Active | Role::Demoting => format!(
            "{takes_none}; it serves now, so that {} takes over first, losing nothing.",
            status.peer.name
        ),
        Role::Joining | Role::Standby | Role::Promoting | Role::Refused => {
            format!("{takes_none}: if {} dies meanwhile, nobody serves.", status.peer.name)
        }
    }
}

fn machine_ends(power: Power, status: &Status) -> String {
    let (host, peer) = (&status.host, &status.peer.name);
    let first = match (status.role, status.peer.role) {
        (Role::Active | Role::Demoting, Some(Role::Standby)) => {
            format!("{peer} takes over, losing nothing")
        }
        (Role::Active | Role::Demoting, _) => {
            format!("{peer} CANNOT TAKE OVER: nobody serves meanwhile")
        }
        (Role::Joining | Role::Refused | Role::Standby | Role::Promoting, _) => {
            format!("{host} does not serve, so that nothing moves")
        }
    };
    let then = match power {
        Power::Reboot => "boots again and comes back as a replica",
        Power::Off => "switches itself off",
    };
    format!("{first}; then the services of {host} end, and it {then}.")
}

fn all_vips(status: &Status) -> String {
    let addresses: Vec<&str> = status.addresses.iter().map(|vip| vip.address.as_str()).collect();
    match addresses.as_slice() {
        [] => "no addresses".to_owned(),
        list => list.join(" and "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::status::tests::whole;

    fn told(request: &Request, status: &Status) -> String {
        preview(request, status).map_or_else(String::new, |lines| lines.join(" "))
    }

    #[test]
    fn who_gives_and_who_takes_is_said_on_either_host() {
        let mut status = whole();
        let text = told(&Request::Switchover, &status);
        assert!(text.starts_with("server1 gives its role to server2"), "{text}");
        assert!(text.contains("10.96.153.239/24 move"), "{text}");
        status.role = Role::Standby;
        let text = told(&Request::Switchover, &status);
        assert!(text.starts_with("server2 gives its role to server1"), "{text}");
    }

    #[test]
    fn what_would_be_lost_is_said() {
        let mut status = whole();
        for (missing, words) in [
            (Some(0), "nothing that server2 is known to have is missing here"),
            (Some(7), "7 transactions of server2 MISSING HERE will be lost"),
            (None, "is not known, and will be lost"),
        ] {
            status.database.missing = missing;
            let text = told(&Request::FailoverForce, &status);
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn what_gives_back_is_not_asked() {
        let status = whole();
        for request in [Request::Hold(false), Request::Maintenance(false), Request::Reload] {
            assert_eq!(preview(&request, &status), None);
        }
        assert!(told(&Request::Maintenance(true), &status).contains("server2 takes over first"));
    }
}
