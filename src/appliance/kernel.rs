//! Settings of the kernel that the role of this machine needs.
//!
//! In: nothing. Out: names below /proc/sys and their values.
//! Read first: Documentation/networking/ip-sysctl.rst and Documentation/admin-guide/sysctl.

/// One setting and why it differs from the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    pub name: &'static str,
    pub value: &'static str,
    pub why: &'static str,
}

const fn setting(name: &'static str, value: &'static str, why: &'static str) -> Setting {
    Setting { name, value, why }
}

pub const SETTINGS: [Setting; 13] = [
    setting(
        "net/ipv4/conf/all/promote_secondaries",
        "1",
        "the host's own address must not go with a virtual one of the same network",
    ),
    setting("net/ipv4/conf/default/promote_secondaries", "1", "the same for cards that come later"),
    setting(
        "net/ipv4/conf/all/arp_ignore",
        "1",
        "an address is answered for on its own link only, or a client learns the wrong card",
    ),
    setting(
        "net/ipv4/conf/all/arp_announce",
        "2",
        "a request must not carry a virtual address that may be on the other host by then",
    ),
    setting("net/ipv4/conf/all/rp_filter", "2", "an answer may leave by the other link"),
    setting("net/ipv4/tcp_syncookies", "1", "a flood of SYN must not lock clients out"),
    setting(
        "net/ipv4/ip_local_port_range",
        "10240 60999",
        "connections between splitter, php-fpm and databases need many ports, none that is served",
    ),
    setting("net/core/somaxconn", "4096", "a burst of clients waits instead of being refused"),
    setting("vm/swappiness", "1", "there is no swap"),
    setting("vm/dirty_ratio", "10", "a commit must not wait behind a minute of other writes"),
    setting("vm/panic_on_oom", "0", "the guilty cgroup pays, not the host"),
    setting("kernel/sysrq", "176", "sync, remount and boot only: a break on the line kills nobody"),
    setting("kernel/panic_on_oops", "1", "a kernel that lost its way is started anew"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_named_once_below_proc_sys_and_has_a_reason() {
        for (place, setting) in SETTINGS.iter().enumerate() {
            assert!(!setting.name.starts_with('/') && !setting.name.contains('.'), "{setting:?}");
            assert!(!setting.why.is_empty());
            assert!(SETTINGS[..place].iter().all(|it| it.name != setting.name), "{setting:?}");
        }
    }
}
