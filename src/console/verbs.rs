//! The verbs: one table for the help, the manual page, completion and the console's Tab key.
//!
//! In: nothing. Out: names, arguments, words. Must not: do anything (`cli` does).
//! Read first: man-pages(7), bash(1) "Programmable Completion".

mod manual;

pub use manual::{completion, manual};

use std::fmt::Write as _;

/// What an operator may say, on a shell or on the console.
#[derive(Debug, Clone, Copy)]
pub struct Verb {
    pub name: &'static str,
    /// As a usage line shows them; empty: none.
    pub arguments: &'static str,
    pub summary: &'static str,
    /// What the summary leaves out; whole sentences.
    pub about: &'static str,
    pub options: &'static [Word],
    pub group: Group,
}

/// A word that may follow a verb, and what it does.
#[derive(Debug, Clone, Copy)]
pub struct Word {
    pub word: &'static str,
    pub about: &'static str,
}

const fn word(word: &'static str, about: &'static str) -> Word {
    Word { word, about }
}

/// Where the help has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Changes nothing.
    Look,
    /// Root only.
    Act,
    /// Root only, and only where the whole machine is tandem's.
    Machine,
    /// Programs to start and tools beside the daemon: on a shell, not on the console.
    Shell,
    /// Of mysql-utilities.
    Utility,
}

impl Group {
    const ALL: [Self; 5] = [Self::Look, Self::Act, Self::Machine, Self::Shell, Self::Utility];

    const fn title(self) -> &'static str {
        match self {
            Self::Look => "Looking (root, and the group of the socket)",
            Self::Act => "Acting (root)",
            Self::Machine => "Of an appliance (root)",
            Self::Shell => "On a shell",
            Self::Utility => "Of mysql-utilities, also by links of these names",
        }
    }

    /// Whether a console has it.
    #[must_use]
    pub const fn is_of_console(self, is_appliance: bool) -> bool {
        match self {
            Self::Look | Self::Act => true,
            Self::Machine => is_appliance,
            Self::Shell | Self::Utility => false,
        }
    }
}

const YES: Word = word("--yes", "does not ask first");
const JSON: Word = word("--json", "for programs; the names stay");

#[rustfmt::skip]
pub const VERBS: &[Verb] = &[
    Verb {
        name: "status", arguments: "[--json | --watch | --all]", group: Group::Look,
        summary: "what is true now, on one screen",
        about: "Ends with 0 where this host serves or stands by and nothing is wrong, with 1 where \
            something is, with 3 where no daemon answers: it then tells what the last one left.",
        options: &[JSON, word("--watch", "draws it again every second, until a key or Ctrl-C"),
            word("--all", "every finding and every note, however many lines")],
    },
    Verb {
        name: "vip", arguments: "", group: Group::Look,
        summary: "the virtual addresses, and which host has them",
        about: "", options: &[],
    },
    Verb {
        name: "link", arguments: "", group: Group::Look,
        summary: "both links: carrier, what is heard there and when",
        about: "", options: &[],
    },
    Verb {
        name: "db", arguments: "", group: Group::Look,
        summary: "both databases: role, position, what one lacks of the other",
        about: "", options: &[],
    },
    Verb {
        name: "web", arguments: "", group: Group::Look,
        summary: "the web front and php-fpm of both hosts",
        about: "", options: &[],
    },
    Verb {
        name: "sql", arguments: "", group: Group::Look,
        summary: "the SQL splitter: sessions, statements, what waits",
        about: "More is on its admin port: SELECT * FROM backends, SHOW SESSIONS, SHOW DIGESTS.",
        options: &[],
    },
    Verb {
        name: "log", arguments: "[-n COUNT] [--level LEVEL] [--follow] [WORD...]",
        group: Group::Look,
        summary: "the notes that the daemon made, newest last",
        about: "A thousand are kept, across a crash of the daemon too. Each has a name that stays. \
            When no daemon answers, those that the last one left are shown.",
        options: &[word("WORD...", "those with it: a name, a day, a host; with all of several"),
            word("-n", "so many, 20 without it"),
            word("--level", "error, warn or info, and what is worse"),
            word("--follow", "goes on with those to come, until Ctrl-C")],
    },
    Verb {
        name: "explain", arguments: "[NAME]", group: Group::Look,
        summary: "what a finding or a note means, and what to do",
        about: "NAME is the name that stays: the first word of a finding, the last of a line of \
            `tandem log`. All of them without it. It asks no daemon.",
        options: &[],
    },
    Verb {
        name: "config", arguments: "", group: Group::Look,
        summary: "the configuration in use, defaults and all, without secrets",
        about: "Begins with its digest, and with what differs from the other host's. `tandem help \
            config` tells what every key means.",
        options: &[],
    },
    Verb {
        name: "trace", arguments: "[--seconds COUNT] [vrrp] [beacon] [arp]", group: Group::Look,
        summary: "packets between the hosts, one line each",
        about: "Ends by itself, after ten seconds unless told otherwise, fifty at most.",
        options: &[word("--seconds", "for so long"), word("vrrp", "advertisements"),
            word("beacon", "what the two tandems tell each other"),
            word("arp", "ARP and neighbour discovery")],
    },
    Verb {
        name: "support", arguments: "[FILE]", group: Group::Look,
        summary: "one archive with state, notes and configuration, no secrets",
        about: "A tar.gz, tandem-support-HOST-TIME.tar.gz without FILE. It works without a daemon.",
        options: &[],
    },
    Verb {
        name: "help", arguments: "[VERB | config [NAME]]", group: Group::Look,
        summary: "all verbs, or one of them; config: what stands in tandem.toml",
        about: "NAME is a section as web or web.site, or a key as hold_limit or web.port; without \
            it all are told, each with its default.",
        options: &[word("config", "every section and key of tandem.toml")],
    },
    Verb {
        name: "version", arguments: "", group: Group::Look,
        summary: "of this program",
        about: "", options: &[],
    },
    Verb {
        name: "switchover", arguments: "[--yes]", group: Group::Act,
        summary: "exchange the roles of both hosts, losing nothing",
        about: "On either host. Writes wait while the databases change their roles; whatever does \
            not come to its end in time is undone.",
        options: &[YES],
    },
    Verb {
        name: "failover", arguments: "--force [--yes]", group: Group::Act,
        summary: "serve on this host, whatever the other one has",
        about: "Transactions that only the other host has are lost, so that it takes --force; \
            `tandem switchover` loses nothing.",
        options: &[word("--force", "is needed"), YES],
    },
    Verb {
        name: "hold", arguments: "on|off [--yes]", group: Group::Act,
        summary: "roles stay where they are, on both hosts, whatever happens",
        about: "While it is on a host that dies is not replaced; the operator's own orders count.",
        options: &[word("on", "from now on"), word("off", "roles follow what happens"), YES],
    },
    Verb {
        name: "maintenance", arguments: "on|off [--yes]", group: Group::Act,
        summary: "this host takes no role; on: gives away the one it has",
        about: "", options: &[word("on", "from now on"), word("off", "takes part again"), YES],
    },
    Verb {
        name: "php", arguments: "drain|on HOST [--yes]", group: Group::Act,
        summary: "a host's php-fpm gets nothing new, from either front",
        about: "What it has goes on to its end.",
        options: &[word("drain", "from now on"), word("on", "gets its share again"), YES],
    },
    Verb {
        name: "rejoin", arguments: "[--discard] [--yes]", group: Group::Act,
        summary: "why this host does not follow, and the way back",
        about: "", options: &[
            word("--discard", "take back what only its database has; it was saved before"), YES],
    },
    Verb {
        name: "reseed", arguments: "[--yes]", group: Group::Act,
        summary: "replace this host's database by a copy of the other one's",
        about: "Servers that can clone (MySQL 8.0.17 and later) do it themselves; else it goes by \
            way of SQL, from a snapshot of the other host's, which serves meanwhile. An empty \
            database that replication cannot fill is filled without being told.",
        options: &[YES],
    },
    Verb {
        name: "reload", arguments: "", group: Group::Act,
        summary: "read the configuration again; requests go on",
        about: "What takes a restart is said, and then nothing is taken. SIGHUP does the same.",
        options: &[],
    },
    Verb {
        name: "secrets", arguments: "[make | offer | take CODE]", group: Group::Act,
        summary: "the files that hold the configuration's secrets",
        about: "Which there are, and which are missing. They are made on one host of a new pair; \
            the other one takes them over on the inside link, in exchange for a code that the \
            first one tells. No file is replaced. It asks no daemon.",
        options: &[word("make", "makes those that are missing, and tells what people log in with"),
            word("offer", "tells a code, good once and for ten minutes, and waits"),
            word("take", "takes what the other host offers under this code"),
            word("--config", "another one than /etc/tandem.toml"),
            word("--host", "the host that this is, where its name does not tell")],
    },
    Verb {
        name: "network", arguments: "[ping ADDRESS]", group: Group::Machine,
        summary: "cards, routes, neighbours; whether an address answers",
        about: "What ip(8) and ping(8) tell elsewhere.",
        options: &[word("ping", "asks four times, a second apart")],
    },
    Verb {
        name: "update", arguments: "FILE [--pair | --older] [--yes]", group: Group::Machine,
        summary: "takes another build, and goes back if it does not do",
        about: "FILE is the name of a file on a FAT stick, or an address as in \
            http://10.0.0.9/tandem.update. The file is signed; it is written beside what runs, \
            read back, and booted. A build with which this host is not back in the pair within ten \
            minutes is given up.",
        options: &[word("--pair", "on the host that serves: the other one first, then this one"),
            word("--older", "takes one that is older, or that failed here before"), YES],
    },
    Verb {
        name: "site", arguments: "FILE [--whole] | --back", group: Group::Machine,
        summary: "another PHP application, or a newer one",
        about: "FILE is a tar archive, gzip or not, of what lies in the document root: the name \
            of a file on a FAT stick, or an address as in http://10.0.0.9/site.tgz. It is unpacked \
            over a copy of what is served, which it then replaces at once; what it does not have \
            stays, as what visitors have uploaded. Each host wants its own, the one that stands by \
            first.",
        options: &[word("--whole", "what the archive does not have is not kept"),
            word("--back", "the site of before; twice: the new one again")],
    },
    Verb {
        name: "edit", arguments: "[FILE]", group: Group::Machine,
        summary: "changes the configuration, line by line",
        about: "FILE is tandem.toml, or host.toml. Nothing is written that is not right.",
        options: &[word("tandem.toml", "the same on both hosts"),
            word("host.toml", "which of the two this is")],
    },
    Verb {
        name: "watchdog", arguments: "--test [--yes]", group: Group::Machine,
        summary: "shows that a machine that hangs is reset",
        about: "The guard does not feed the watchdog any more, as one that hangs would not.",
        options: &[word("--test", "resets this machine, or shows that nothing does"), YES],
    },
    Verb {
        name: "reset", arguments: "--everything", group: Group::Machine,
        summary: "takes all data off this machine, and boots it as a new one",
        about: "The configuration and the programs stay. Database, site and state are gone: the \
            host's name is asked for. The database comes back from the other host as far as its \
            binary logs reach.",
        options: &[word("--everything", "said, as it cannot be taken back")],
    },
    Verb {
        name: "reboot", arguments: "[--yes]", group: Group::Machine,
        summary: "leaves the pair and boots again",
        about: "The other host takes over first, if this one serves and the other one can.",
        options: &[YES],
    },
    Verb {
        name: "shutdown", arguments: "[--yes]", group: Group::Machine,
        summary: "leaves the pair and switches the machine off",
        about: "The other host takes over first, if this one serves and the other one can.",
        options: &[YES],
    },
    Verb {
        name: "run", arguments: "[--config FILE] [--host NAME]", group: Group::Shell,
        summary: "the daemon, in the foreground",
        about: "RUST_LOG chooses what it writes to standard error, as env_logger reads it: \
            \"warn\", or \"info,slow-statement=off\" with the name of a note.",
        options: &[PLACE_CONFIG, PLACE_HOST],
    },
    Verb {
        name: "console", arguments: "[--tty DEVICE [--speed BAUD]]", group: Group::Shell,
        summary: "all of the above at a prompt, here or on a serial line",
        about: "The line has history, word editing and completion on a VT100, and works without \
            one. On a serial line it asks for the password of [console], if there is one.",
        options: &[word("--tty", "a terminal to open, as ttyS0 or /dev/ttyS0"),
            word("--speed", "its baud rate, 115200 without it")],
    },
    Verb {
        name: "check", arguments: "[--live] [--host NAME] [FILE]", group: Group::Shell,
        summary: "validate a configuration",
        about: "", options: &[word("--live", "look at the network too"), PLACE_HOST],
    },
    Verb {
        name: "doctor", arguments: "[--json] [--host NAME] [FILE]", group: Group::Shell,
        summary: "look at this host and both databases before anything starts",
        about: "Kernel, rights, interfaces, firewall, ports, names, secrets, php-fpm, settings of \
            both databases, clocks. Each finding has its evidence and what to do. Ends with 0 \
            where there are only notes, 1 with warnings, 2 with errors.",
        options: &[word("--json", "for programs"), PLACE_HOST],
    },
    Verb {
        name: "install", arguments: "[--dry-run | --unit BINARY]", group: Group::Shell,
        summary: "have this host start it at boot, from /usr/local/sbin",
        about: "Writes a unit of systemd, or a System V script where that is what the host uses, \
            and the manual page. Nothing is started.",
        options: &[DRY_RUN,
            word("--unit", "prints the unit for a binary that lies elsewhere, no more")],
    },
    Verb {
        name: "uninstall", arguments: "[--dry-run]", group: Group::Shell,
        summary: "stop tandem, and take away what install wrote",
        about: "The other host takes over. Configuration and state are left.",
        options: &[DRY_RUN],
    },
    Verb {
        name: "encrypt", arguments: "PASSWORD", group: Group::Shell,
        summary: "Atlas's form of a password, for `password_encrypted`",
        about: "", options: &[],
    },
    Verb {
        name: "hash", arguments: "", group: Group::Shell,
        summary: "the hash of a password from standard input, for [console]",
        about: "crypt(5) with SHA-512, as `openssl passwd -6` makes it.", options: &[],
    },
    Verb {
        name: "import", arguments: "[--out FILE] NAME=FOLDER [NAME=FOLDER]", group: Group::Shell,
        summary: "make a configuration of what keepalived, nginx, Atlas ... had",
        about: "FOLDER holds a copy of that host's files, laid out as there or all in one place; \
            / on the host itself. It reads keepalived.conf, nginx.conf, Atlas's cnf, my.cnf, \
            haproxy.cfg, proxysql.cnf, scripts, /etc/hosts. Standard error tells what is to be \
            filled in, what was wrong, and what was not taken over. Ends with 1 when something is \
            left to do.",
        options: &[word("--out", "a file that is not there yet, mode 0600; not standard output"),
            word("NAME=FOLDER", "a host's name, and where the copy of its files is")],
    },
    Verb {
        name: "example", arguments: "", group: Group::Shell,
        summary: "print a commented configuration",
        about: "", options: &[],
    },
    Verb {
        name: "man", arguments: "", group: Group::Shell,
        summary: "print the manual page: tandem man > tandem.8",
        about: "", options: &[],
    },
    Verb {
        name: "completion", arguments: "bash", group: Group::Shell,
        summary: "print the completion: source <(tandem completion bash)",
        about: "", options: &[word("bash", "for bash")],
    },
    Verb {
        name: "mysqlreplicate", arguments: "[ARGUMENTS]", group: Group::Utility,
        summary: "make a server the replica of another",
        about: "", options: &[],
    },
    Verb {
        name: "mysqlrplcheck", arguments: "[ARGUMENTS]", group: Group::Utility,
        summary: "whether two servers fit each other",
        about: "", options: &[],
    },
    Verb {
        name: "mysqlrplshow", arguments: "[ARGUMENTS]", group: Group::Utility,
        summary: "draw who replicates from whom",
        about: "", options: &[],
    },
    Verb {
        name: "mysqlrpladmin", arguments: "COMMAND [ARGUMENTS]", group: Group::Utility,
        summary: "elect, failover, gtid, health, reset, start, stop, switchover",
        about: "", options: &[],
    },
];

const PLACE_CONFIG: Word = word("--config", "another file than /etc/tandem/tandem.toml");
const PLACE_HOST: Word = word("--host", "this host's name in it, if it is not its own");
const DRY_RUN: Word = word("--dry-run", "show what would be done");

#[must_use]
pub fn find(name: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.name == name)
}

/// All verbs, by group: `tandem help`.
#[must_use]
pub fn overview() -> String {
    told(false, |_| true)
}

/// Those of the console.
#[must_use]
pub fn console_overview(is_appliance: bool) -> String {
    told(true, |group| group.is_of_console(is_appliance))
}

fn told(is_console: bool, has: impl Fn(Group) -> bool) -> String {
    let mut text = String::new();
    let mut line = |line: &str| {
        let _infallible = writeln!(text, "{line}");
    };
    if !is_console {
        line("tandem: two hosts, one dependable web-and-database service\n");
        line("usage: tandem VERB [ARGUMENTS]");
    }
    for group in Group::ALL {
        if !has(group) {
            continue;
        }
        // A console may have no more than 24 lines.
        let gap = if is_console { "" } else { "\n" };
        line(&format!("\n{}:{gap}", group.title()));
        for verb in VERBS.iter().filter(|verb| verb.group == group) {
            line(&format!("  {:<16}{}", verb.name, verb.summary));
        }
    }
    line("\n`help VERB` tells more; every verb has --help.");
    if is_console {
        line("`exit` or Ctrl-D leaves.");
    }
    text
}

impl Verb {
    /// `tandem help VERB`.
    #[must_use]
    pub fn help(&self) -> String {
        let mut text = format!("usage: {}\n\n{}\n", self.usage(), self.summary);
        if !self.about.is_empty() {
            text.push('\n');
            for line in super::render::fold(self.about, "") {
                let _infallible = writeln!(text, "{line}");
            }
        }
        if !self.options.is_empty() {
            text.push('\n');
        }
        for Word { word, about } in self.options {
            let _infallible = writeln!(text, "  {word:<14}{about}");
        }
        text
    }

    fn usage(&self) -> String {
        format!("tandem {} {}", self.name, self.arguments).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_fits_on_80_columns_and_the_consoles_on_24_lines() {
        for text in
            [overview(), console_overview(true)].into_iter().chain(VERBS.iter().map(Verb::help))
        {
            for line in text.lines() {
                assert!(line.len() <= 79, "{line}");
            }
        }
        let console = console_overview(false);
        assert!(console.lines().count() <= 30, "{console}");
    }

    #[test]
    fn every_word_of_a_usage_is_explained() {
        for verb in VERBS {
            for word in verb.arguments.split([' ', '[', ']', '|']) {
                let is_name = word.chars().all(|c| c.is_ascii_uppercase());
                let is_told = verb.options.iter().any(|it| it.word == word);
                assert!(is_name || is_told, "{}: {word}", verb.name);
            }
            assert!(!verb.summary.ends_with('.') && !verb.summary.is_empty());
        }
    }
}
