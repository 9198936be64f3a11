//! Whether a host's firewall lets a packet in, which opens a connection there.
//!
//! In: what `iptables-save` and `nft -j list ruleset` print, a packet. Out: a verdict with the rule
//! that gave it; the commands that let the packet in. Must not: run a tool, change a rule, guess: a
//! rule that it does not understand is told as that.
//! Read first: iptables-save(8), iptables-extensions(8), libnftables-json(5).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::Value;

/// Chains inside chains; the kernel has 16 for nft.
const DEPTH_MAX: usize = 32;
/// Rules looked at for one packet: chains that call each other twice grow as powers of two.
const STEPS_MAX: usize = 200_000;
const VRRP: u64 = 112;
const NFPROTO_IPV4: u64 = 2;
const ETHERTYPE_IP: u64 = 0x0800;
/// What no packet of ours has: protocols that we do not send.
const FOREIGN: u64 = u64::MAX;
/// Targets after which iptables goes on to the next rule.
const PASSING: &str = " LOG NFLOG ULOG MARK CONNMARK TRACE TOS DSCP TTL TCPMSS SET CLASSIFY AUDIT \
     SECMARK CONNSECMARK CHECKSUM NOTRACK CT RATEEST LED IDLETIMER ";

/// A packet that has to come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// "VRRP", "the beacon", "HTTP".
    pub what: &'static str,
    pub protocol: Protocol,
    pub device: String,
    pub source: Ipv4Addr,
    /// An address of this host, or the multicast group.
    pub destination: Ipv4Addr,
}

/// Protocol and destination port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Vrrp,
    Tcp(u16),
    Udp(u16),
}

/// What the firewall does with the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    /// The rule or policy that drops or rejects, as its own tool writes it.
    Dropped(String),
    /// The rule that was not understood and may decide.
    Unclear(String),
}

impl Protocol {
    fn number(self) -> u64 {
        number(self.name()).unwrap_or(FOREIGN)
    }

    fn port(self) -> Option<u64> {
        match self {
            Self::Vrrp => None,
            Self::Tcp(port) | Self::Udp(port) => Some(port.into()),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Vrrp => "vrrp",
            Self::Tcp(_) => "tcp",
            Self::Udp(_) => "udp",
        }
    }
}

/// Whether a rule matches the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Truth {
    No,
    Maybe,
    Yes,
}

impl Truth {
    const fn of(is: bool) -> Self {
        if is { Self::Yes } else { Self::No }
    }

    fn not_if(self, negated: bool) -> Self {
        if negated && self != Self::Maybe { Self::of(self == Self::No) } else { self }
    }
}

/// Whether a client's port, which the system chose, lies in the range.
fn source_port(low: u64, high: u64) -> Truth {
    let is_all = low <= 1024 && high >= 65_535;
    if is_all { Truth::Yes } else { Truth::of(high >= 1024).min(Truth::Maybe) }
}

fn is_passing(target: &str) -> bool {
    PASSING.split_whitespace().any(|passing| passing == target)
}

/// A number, an address, or a name that either tool gives to a protocol.
fn number(word: &str) -> Option<u64> {
    match word.to_ascii_lowercase().as_str() {
        "tcp" => Some(6),
        "udp" => Some(17),
        "vrrp" | "carp" => Some(VRRP),
        "ipv4" => Some(NFPROTO_IPV4),
        "ip" => Some(ETHERTYPE_IP),
        "icmp" | "icmpv6" | "ipv6-icmp" | "igmp" | "esp" | "ah" | "gre" | "sctp" | "dccp"
        | "udplite" | "comp" | "ipcomp" | "ospf" | "pim" | "ip6" | "ipv6" | "arp" => Some(FOREIGN),
        word => word.parse().ok().or_else(|| Some(word.parse::<Ipv4Addr>().ok()?.to_bits().into())),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    GoOn,
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
    /// It may accept, drop or go on.
    Unknown,
}

struct Rule {
    text: String,
    truth: Truth,
    action: Action,
}

type Chains = BTreeMap<String, Vec<Rule>>;
/// Why a path of the packet is only possible: the rule that was not understood.
type Cause = Option<String>;

/// One packet's way through chains. The plain path takes no rule that was not understood.
struct Walk<'a> {
    chains: &'a Chains,
    steps: usize,
    plain: Option<Verdict>,
    may_accept: Cause,
    may_drop: Cause,
}

impl<'a> Walk<'a> {
    /// From a base chain's first rule to its policy.
    fn base(chains: &'a Chains, name: &str, policy: &Verdict) -> Verdict {
        let mut walk = Self { chains, steps: 0, plain: None, may_accept: None, may_drop: None };
        if let Some(cause) = walk.chain(name, 0, None) {
            walk.ends(policy.clone(), cause);
        }
        let plain = walk.plain.unwrap_or(Verdict::Accepted);
        let other = match plain {
            Verdict::Accepted => walk.may_drop,
            Verdict::Dropped(_) => walk.may_accept,
            Verdict::Unclear(_) => None,
        };
        other.map_or(plain, Verdict::Unclear)
    }

    fn ends(&mut self, verdict: Verdict, cause: Cause) {
        match (cause, &verdict) {
            (None, _) => _ = self.plain.get_or_insert(verdict),
            (Some(cause), Verdict::Accepted) => _ = self.may_accept.get_or_insert(cause),
            (Some(cause), Verdict::Dropped(_) | Verdict::Unclear(_)) => {
                _ = self.may_drop.get_or_insert(cause);
            }
        }
    }

    /// `None`: the packet's way ends. Otherwise it goes on, with a cause: only perhaps.
    fn chain(&mut self, name: &str, depth: usize, entered: Cause) -> Option<Cause> {
        let chains = self.chains;
        // The packet is still in this chain because of `here`.
        let mut here = entered;
        let mut returned = None;
        let rules = chains.get(name).into_iter().flatten();
        for rule in rules.filter(|rule| rule.truth != Truth::No) {
            self.steps += 1;
            let is_too_far = self.steps > STEPS_MAX || depth > DEPTH_MAX;
            if is_too_far || rule.action == Action::Unknown {
                self.ends(Verdict::Accepted, Some(rule.text.clone()));
                self.ends(Verdict::Dropped(String::new()), Some(rule.text.clone()));
                match is_too_far {
                    true => break,
                    false => continue,
                }
            }
            let is_sure = rule.truth == Truth::Yes;
            let taken = here.clone().or_else(|| (!is_sure).then(|| rule.text.clone()));
            let mut after = None;
            match &rule.action {
                Action::GoOn | Action::Unknown => continue,
                Action::Accept => self.ends(Verdict::Accepted, taken),
                Action::Drop => self.ends(Verdict::Dropped(rule.text.clone()), taken),
                Action::Return => leave(&mut returned, Some(taken)),
                Action::Jump(target) => after = self.chain(target, depth + 1, taken),
                Action::Goto(target) => leave(&mut returned, self.chain(target, depth + 1, taken)),
            }
            // A rule that may not match leaves the plain path as it was.
            if is_sure {
                let Some(cause) = after else { return returned };
                here = cause;
            }
        }
        leave(&mut returned, Some(here));
        returned
    }
}

/// Of two paths out of a chain the plain one counts.
fn leave(returned: &mut Option<Cause>, flow: Option<Cause>) {
    if returned.is_none() || flow == Some(None) {
        *returned = flow;
    }
}

/// The filter table's INPUT chain; no table, no chain: accepted.
#[must_use]
pub fn iptables(text: &str, wanted: &Wanted) -> Verdict {
    let mut chains: Chains = BTreeMap::new();
    let mut policy = Verdict::Accepted;
    let mut rules = Vec::new();
    let lines = text.lines().map(str::trim).skip_while(|line| *line != "*filter");
    for line in lines.take_while(|line| *line != "COMMIT") {
        if let Some(declared) = line.strip_prefix(':') {
            let mut words = declared.split_whitespace();
            let name = words.next().unwrap_or_default();
            if name == "INPUT" && words.next() == Some("DROP") {
                policy = Verdict::Dropped(line.to_owned());
            }
            chains.entry(name.to_owned()).or_default();
        } else {
            rules.push(line);
        }
    }
    for line in rules {
        let words = words(line);
        // Behind the counters of `iptables-save -c`.
        let counted = usize::from(line.starts_with('['));
        let mut words = words.iter().map(String::as_str).skip(counted);
        let (Some("-A"), Some(chain)) = (words.next(), words.next()) else { continue };
        let (truth, action) = iptables_rule(&words.collect::<Vec<_>>(), &chains, wanted);
        let rule = Rule { text: line.to_owned(), truth, action };
        chains.entry(chain.to_owned()).or_default().push(rule);
    }
    Walk::base(&chains, "INPUT", &policy)
}

/// Words of a line; text in quotes is one.
fn words(line: &str) -> Vec<String> {
    let plain = line.replace("\\\"", "'");
    let parts = plain.split('"').enumerate().flat_map(|(index, part)| match index % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.replace(|letter: char| "!-".contains(letter), "_")],
    });
    parts.collect()
}

fn iptables_rule(words: &[&str], chains: &Chains, wanted: &Wanted) -> (Truth, Action) {
    const OLD_NEGATED: &[&str] = &["-p", "-s", "-d", "-i", "--dport", "--sport", "--state"];
    let mut words = words.iter().copied().peekable();
    let is_value = |word: &&str| !word.starts_with('-') && *word != "!";
    let mut truth = Truth::Yes;
    while let Some(word) = words.next() {
        let mut negated = word == "!";
        let word = if negated { words.next().unwrap_or_default() } else { word };
        if matches!(word, "-j" | "--jump" | "-g" | "--goto") {
            let target = words.next().unwrap_or_default();
            return (truth, target_action(target, word.ends_with('g') || word == "--goto", chains));
        }
        // iptables before 1.4.3 writes `-s ! 10.0.0.0/8`.
        negated |= OLD_NEGATED.contains(&word) && words.next_if_eq(&"!").is_some();
        let values: Vec<_> = std::iter::from_fn(|| words.next_if(is_value)).collect();
        let one = match (word, values.as_slice()) {
            ("-f", _) => Truth::No,
            // The first segment of a connection has SYN alone.
            ("--tcp-flags", [mask, set]) => {
                let is_examined = mask.split(',').any(|flag| matches!(flag, "SYN" | "ALL"));
                Truth::of(*set == if is_examined { "SYN" } else { "NONE" })
            }
            (option, [value]) => iptables_match(option, value, wanted),
            _ => Truth::Maybe,
        };
        truth = truth.min(one.not_if(negated));
    }
    (truth, Action::GoOn)
}

fn target_action(target: &str, is_goto: bool, chains: &Chains) -> Action {
    match target {
        "ACCEPT" => Action::Accept,
        "DROP" | "REJECT" => Action::Drop,
        "RETURN" => Action::Return,
        name if chains.contains_key(name) && is_goto => Action::Goto(name.to_owned()),
        name if chains.contains_key(name) => Action::Jump(name.to_owned()),
        name if is_passing(name) => Action::GoOn,
        _ => Action::Unknown,
    }
}

fn iptables_match(option: &str, value: &str, wanted: &Wanted) -> Truth {
    const KNOWN: &[&str] = &["tcp", "udp", "multiport", "state", "conntrack", "comment"];
    let protocol = wanted.protocol;
    match option {
        "-p" | "--protocol" => {
            Truth::of(["all", "0"].contains(&value) || number(value) == Some(protocol.number()))
        }
        "-i" | "--in-interface" => Truth::of(is_device(value, '+', &wanted.device)),
        "-s" | "--source" | "--src" => in_network(value, wanted.source),
        "-d" | "--destination" | "--dst" => in_network(value, wanted.destination),
        "-m" | "--match" if KNOWN.contains(&value) => Truth::Yes,
        "--comment" => Truth::Yes,
        "--state" | "--ctstate" => Truth::of(value.split(',').any(|state| state == "NEW")),
        "--dport" | "--dports" => in_ports(value, |low, high| {
            protocol.port().map_or(Truth::Maybe, |port| Truth::of((low..=high).contains(&port)))
        }),
        "--sport" | "--sports" => in_ports(value, source_port),
        _ => Truth::Maybe,
    }
}

fn is_device(pattern: &str, wildcard: char, device: &str) -> bool {
    pattern.strip_suffix(wildcard).map_or(pattern == device, |start| device.starts_with(start))
}

/// `10.0.0.0/8`, `10.0.0.0/255.0.0.0` or one address.
fn in_network(value: &str, address: Ipv4Addr) -> Truth {
    let (network, mask) = value.split_once('/').unwrap_or((value, "32"));
    let Ok(network) = network.parse::<Ipv4Addr>() else { return Truth::Maybe };
    let mask = mask.parse::<Ipv4Addr>().map(Ipv4Addr::to_bits).or_else(|_| {
        let bits = mask.parse::<u32>().map(|bits| 32_u32.saturating_sub(bits));
        bits.map(|zeros| u32::MAX.checked_shl(zeros).unwrap_or(0))
    });
    let differs = address.to_bits() ^ network.to_bits();
    mask.map_or(Truth::Maybe, |mask| Truth::of(differs & mask == 0))
}

/// `80,443,1000:2000`.
fn in_ports(value: &str, is_in: impl Fn(u64, u64) -> Truth) -> Truth {
    let one = |part: &str| {
        let (low, high) = part.split_once(':').unwrap_or((part, part));
        Some(is_in(low.parse().ok()?, high.parse().ok()?))
    };
    value.split(',').map(|part| one(part).unwrap_or(Truth::Maybe)).max().unwrap_or(Truth::Maybe)
}

/// Every base chain of type filter at the hook input, of the families ip and inet, by priority.
/// The error is what is wrong with the text.
pub fn nft(json: &str, wanted: &Wanted) -> Result<Verdict, String> {
    let tree: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let objects = tree.get("nftables").and_then(Value::as_array).ok_or("no \"nftables\" in it")?;
    let mut chains: Chains = BTreeMap::new();
    let mut bases = Vec::new();
    for object in objects {
        if let Some(chain) = object.get("chain") {
            bases.extend(base(chain));
        } else if let Some(rule) = object.get("rule") {
            let key = key(rule, "table", &text(rule, "chain"));
            let rules = nft_rule(rule, &key, wanted);
            chains.entry(key).or_default().extend(rules);
        }
    }
    bases.sort_by_key(|(priority, ..)| *priority);
    let walked = bases.iter().map(|(_, key, policy)| Walk::base(&chains, key, policy));
    let verdicts: Vec<_> = walked.collect();
    // A drop anywhere drops, whatever the others may do.
    let dropped = verdicts.iter().find(|verdict| matches!(verdict, Verdict::Dropped(_)));
    let unclear = verdicts.iter().find(|verdict| matches!(verdict, Verdict::Unclear(_)));
    Ok(dropped.or(unclear).cloned().unwrap_or(Verdict::Accepted))
}

fn text(object: &Value, name: &str) -> String {
    object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Family, table and chain, as nft's commands name them.
fn key(object: &Value, table: &str, chain: &str) -> String {
    format!("{} {} {chain}", text(object, "family"), text(object, table))
}

/// A base chain: where it stands, its key, its policy.
fn base(chain: &Value) -> Option<(i64, String, Verdict)> {
    let is_ours = matches!(text(chain, "family").as_str(), "ip" | "inet")
        && text(chain, "hook") == "input"
        && text(chain, "type") == "filter";
    let key = key(chain, "table", &text(chain, "name"));
    let policy = match text(chain, "policy").as_str() {
        "drop" => Verdict::Dropped(format!("{key}: policy drop")),
        _ => Verdict::Accepted,
    };
    let priority = chain.get("prio").and_then(Value::as_i64).unwrap_or(0);
    is_ours.then_some((priority, key, policy))
}

/// One rule, or one for each entry of its verdict map that may fit.
fn nft_rule(rule: &Value, key: &str, wanted: &Wanted) -> Vec<Rule> {
    let statements = rule.get("expr").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let handle = rule.get("handle").map(Value::to_string).unwrap_or_default();
    let shown: Vec<String> = statements.iter().map(Value::to_string).collect();
    let shown = format!("{key} handle {handle}: {}", shown.join(" "));
    let made = |truth, action| Rule { text: shown.clone(), truth, action };
    let table = key.rsplit_once(' ').map_or(key, |(table, _)| table);
    let mut truth = Truth::Yes;
    let mut ends = Action::GoOn;
    for (name, body) in statements.iter().filter_map(Value::as_object).flatten() {
        if let Some(action) = nft_verdict(name, body, table) {
            return vec![made(truth, action)];
        }
        match name.as_str() {
            "match" => truth = truth.min(nft_match(body, wanted)),
            "vmap" => {
                let entries = vmap(body, table, wanted).into_iter();
                return entries.map(|(one, action)| made(truth.min(one), action)).collect();
            }
            "counter" | "log" | "comment" | "mangle" | "notrack" | "set" => {}
            "limit" | "quota" | "ct count" => truth = truth.min(Truth::Maybe),
            "xt" if text(body, "name") == "REJECT" => return vec![made(truth, Action::Drop)],
            "xt" if text(body, "name") == "comment" || is_passing(&text(body, "name")) => {}
            "xt" if text(body, "type") == "match" => truth = truth.min(Truth::Maybe),
            _ => (truth, ends) = (truth.min(Truth::Maybe), Action::Unknown),
        }
    }
    vec![made(truth, ends)]
}

fn nft_verdict(name: &str, body: &Value, table: &str) -> Option<Action> {
    let target = || format!("{table} {}", text(body, "target"));
    match name {
        "accept" => Some(Action::Accept),
        "drop" | "reject" => Some(Action::Drop),
        "return" => Some(Action::Return),
        "continue" => Some(Action::GoOn),
        "jump" => Some(Action::Jump(target())),
        "goto" => Some(Action::Goto(target())),
        _ => None,
    }
}

fn vmap(body: &Value, table: &str, wanted: &Wanted) -> Vec<(Truth, Action)> {
    let left = body.get("key").map_or(Left::Unknown, |key| Left::read(key, wanted));
    let set = body.get("data").and_then(|data| data.get("set")).and_then(Value::as_array);
    let Some(entries) = set else { return vec![(Truth::Maybe, Action::Unknown)] };
    let read = |entry: &Value| {
        let (key, verdict) = (entry.get(0)?, entry.get(1)?.as_object()?);
        let action = verdict.iter().find_map(|(name, body)| nft_verdict(name, body, table));
        let is_rest = key.as_str() == Some("*") && left != Left::Never;
        let truth = if is_rest { Truth::Yes } else { left.is(key) };
        Some((is_rest, truth, action.unwrap_or(Action::Unknown)))
    };
    let mut all: Vec<_> = entries.iter().filter_map(read).collect();
    all.sort_by_key(|(is_rest, ..)| *is_rest);
    let sure = all.iter().position(|(_, truth, _)| *truth == Truth::Yes);
    all.truncate(sure.map_or(all.len(), |index| index + 1));
    all.into_iter().map(|(_, truth, action)| (truth, action)).collect()
}

/// What a match looks at, in our packet.
#[derive(Debug, PartialEq, Eq)]
enum Left<'a> {
    Number(u64),
    SourcePort,
    Device(&'a str),
    State,
    /// A header that the packet does not have.
    Never,
    Unknown,
}

impl<'a> Left<'a> {
    fn read(left: &Value, wanted: &'a Wanted) -> Self {
        if let Some(meta) = left.get("meta") {
            return match text(meta, "key").as_str() {
                "l4proto" => Self::Number(wanted.protocol.number()),
                "iifname" | "iif" => Self::Device(&wanted.device),
                "nfproto" => Self::Number(NFPROTO_IPV4),
                "protocol" => Self::Number(ETHERTYPE_IP),
                _ => Self::Unknown,
            };
        }
        if left.get("ct").is_some_and(|ct| text(ct, "key") == "state") {
            return Self::State;
        }
        if let Some(payload) = left.get("payload") {
            return Self::payload(payload, wanted);
        }
        // `tcp flags & (fin | syn)`.
        let masked = left.get("&").and_then(|operands| operands.get(0)?.get("payload"));
        let is_foreign = masked.is_some_and(|it| Self::payload(it, wanted) == Self::Never);
        if is_foreign { Self::Never } else { Self::Unknown }
    }

    fn payload(payload: &Value, wanted: &Wanted) -> Self {
        let (header, field) = (text(payload, "protocol"), text(payload, "field"));
        let protocol = wanted.protocol;
        let is_own = header == "th" || header == protocol.name();
        match (header.as_str(), field.as_str(), protocol.port()) {
            ("ip", "protocol", _) => Self::Number(protocol.number()),
            ("ip", "saddr", _) => Self::Number(wanted.source.to_bits().into()),
            ("ip", "daddr", _) => Self::Number(wanted.destination.to_bits().into()),
            (_, "dport", Some(port)) if is_own => Self::Number(port),
            (_, "sport", Some(_)) if is_own => Self::SourcePort,
            ("ip" | "ether" | "vlan" | "", ..) => Self::Unknown,
            _ => {
                if is_own {
                    Self::Unknown
                } else {
                    Self::Never
                }
            }
        }
    }

    /// Whether it is the value, or one of them.
    fn is(&self, right: &Value) -> Truth {
        let inner = right.get("set").or_else(|| right.get("elem")?.get("val"));
        let right = inner.unwrap_or(right);
        if let Some(values) = right.as_array() {
            return values.iter().map(|value| self.is(value)).max().unwrap_or(Truth::No);
        }
        let word = right.as_str().filter(|word| !word.starts_with('@'));
        let known = match self {
            Self::Never => Some(Truth::No),
            Self::Unknown => None,
            Self::State => word.map(|state| Truth::of(state == "new")),
            Self::Device(own) => word.map(|pattern| Truth::of(is_device(pattern, '*', own))),
            Self::SourcePort => span(right).map(|(low, high)| source_port(low, high)),
            Self::Number(own) => {
                span(right).map(|(low, high)| Truth::of((low..=high).contains(own)))
            }
        };
        known.unwrap_or(Truth::Maybe)
    }
}

/// A value, a range or a prefix as least and greatest number.
fn span(right: &Value) -> Option<(u64, u64)> {
    let value = |value: &Value| value.as_u64().or_else(|| number(value.as_str()?));
    if let Some(range) = right.get("range") {
        return Some((value(range.get(0)?)?, value(range.get(1)?)?));
    }
    if let Some(prefix) = right.get("prefix") {
        let bits = u32::try_from(prefix.get("len")?.as_u64()?).ok()?;
        let size = 1_u64.checked_shl(32_u32.checked_sub(bits)?)?;
        let first = value(prefix.get("addr")?)? / size * size;
        return Some((first, first.checked_add(size - 1)?));
    }
    value(right).map(|value| (value, value))
}

fn nft_match(body: &Value, wanted: &Wanted) -> Truth {
    let left = body.get("left").map_or(Left::Unknown, |left| Left::read(left, wanted));
    let right = body.get("right").unwrap_or(&Value::Null);
    // A mask of several states is one value to these operators.
    let is_mask = right.as_array().is_some_and(|values| values.len() > 1);
    let found = left.is(right);
    match text(body, "op").as_str() {
        _ if left == Left::Never => Truth::No,
        "==" | "!=" if is_mask && found == Truth::Yes => Truth::Maybe,
        "==" | "in" => found,
        "!=" | "!" => found.not_if(true),
        _ => Truth::Maybe,
    }
}

/// The commands that let the packet in: of iptables, of nft and of firewalld.
#[must_use]
pub fn hint(wanted: &Wanted) -> String {
    let Wanted { protocol, device, source, .. } = wanted;
    let name = protocol.name();
    // An address of documentation stands for any visitor.
    let is_any = source.is_unspecified() || source.is_documentation();
    let by = |option: &str| if is_any { String::new() } else { format!(" {option} {source}") };
    let (iptables, nft, firewalld) = match protocol.port() {
        None => (
            format!("-p {VRRP}"),
            format!("meta l4proto {name}"),
            format!("--add-rich-rule='rule protocol value=\"{name}\" accept'"),
        ),
        Some(port) => (
            format!("-p {name} --dport {port}"),
            format!("{name} dport {port}"),
            format!("--add-port={port}/{name}"),
        ),
    };
    format!(
        "iptables -I INPUT -i {device} {iptables}{} -j ACCEPT; or, in nftables: nft insert rule \
         inet filter input iifname {device}{} {nft} accept; or, in firewalld: firewall-cmd \
         --permanent {firewalld} && firewall-cmd --reload",
        by("-s"),
        by("ip saddr")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const CENTOS6: &str = "# Generated by iptables-save v1.4.7
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [61:7012]
-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT
-A INPUT -j REJECT --reject-with icmp-host-prohibited
-A FORWARD -j REJECT --reject-with icmp-host-prohibited
COMMIT
";
    const REJECTED: &str = "-A INPUT -j REJECT --reject-with icmp-host-prohibited";

    fn wanted(protocol: Protocol) -> Wanted {
        let destination = match protocol {
            Protocol::Vrrp => Ipv4Addr::new(224, 0, 0, 18),
            Protocol::Tcp(_) | Protocol::Udp(_) => Ipv4Addr::new(192, 168, 3, 102),
        };
        let source = Ipv4Addr::new(192, 168, 3, 101);
        Wanted { what: "it", protocol, device: "eth1".to_owned(), source, destination }
    }

    /// The rules, each on a line, before a policy.
    fn by(policy: &str, rules: &[&str], protocol: Protocol) -> Verdict {
        let rules = rules.join("\n");
        let text = format!("*filter\n:INPUT {policy} [0:0]\n:SUB - [0:0]\n{rules}\nCOMMIT\n");
        iptables(&text, &wanted(protocol))
    }

    fn dropped(rule: &str) -> Verdict {
        Verdict::Dropped(rule.to_owned())
    }

    fn unclear(rule: &str) -> Verdict {
        Verdict::Unclear(rule.to_owned())
    }

    #[test]
    fn centos_6_drops_vrrp_until_a_rule_accepts_it() {
        assert_eq!(iptables(CENTOS6, &wanted(Protocol::Vrrp)), dropped(REJECTED));
        assert_eq!(iptables(CENTOS6, &wanted(Protocol::Tcp(80))), dropped(REJECTED));
        assert_eq!(iptables(CENTOS6, &wanted(Protocol::Tcp(22))), Verdict::Accepted);
        for rule in ["-p vrrp", "-p 112", "-i eth+ -d 224.0.0.0/8", "-s 192.168.3.101/32 ! -p tcp"]
        {
            let rule = format!("-A INPUT {rule} -j ACCEPT\n{REJECTED}");
            let text = CENTOS6.replacen(REJECTED, &rule, 1);
            assert_eq!(iptables(&text, &wanted(Protocol::Vrrp)), Verdict::Accepted, "{rule}");
        }
        assert_eq!(iptables("", &wanted(Protocol::Vrrp)), Verdict::Accepted);
    }

    #[test]
    fn matches_are_understood() {
        let yes = [
            "-p tcp -m multiport --dports 80,443,1000:2000",
            "-p tcp -m tcp --dport 400:500",
            "-p tcp -m state --state NEW,ESTABLISHED",
            "-m conntrack ! --ctstate INVALID",
            "-s 192.168.0.0/255.255.0.0",
            "-s ! 10.0.0.0/8",
            "! -i lo -m comment --comment \"it's -j DROP \\\" here\"",
            "-p tcp -m tcp --sport 1024:65535",
            "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN",
        ];
        let no = [
            "-p udp",
            "-p tcp -m multiport ! --dports 443,80",
            "-i eth0",
            "-d 224.0.0.0/4",
            "-m state --state RELATED,ESTABLISHED",
            "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN",
            "-p icmp -m icmp --icmp-type 8",
            "-f",
            "-p tcp -m tcp --sport 53",
        ];
        let policy = dropped(":INPUT DROP [0:0]");
        for (all, verdict) in [(&yes, Verdict::Accepted), (&no, policy)] {
            for rule in all {
                let rule = format!("[3:180] -A INPUT {rule} -j ACCEPT");
                assert_eq!(by("DROP", &[&rule], Protocol::Tcp(443)), verdict, "{rule}");
            }
        }
    }

    #[test]
    fn user_chains_return_and_go_on() {
        let policy = dropped(":INPUT DROP [0:0]");
        let sub = ["-A SUB -p vrrp -j RETURN", "-A SUB -j LOG", "-A SUB -j DROP"];
        let jump = [&["-A INPUT -j SUB", "-A INPUT -j ACCEPT"], &sub[..]].concat();
        assert_eq!(by("DROP", &jump, Protocol::Vrrp), Verdict::Accepted);
        assert_eq!(by("DROP", &jump, Protocol::Tcp(80)), dropped("-A SUB -j DROP"));
        let goto = [&["-A INPUT -g SUB", "-A INPUT -j ACCEPT"], &sub[..]].concat();
        assert_eq!(by("DROP", &goto, Protocol::Vrrp), policy);
        let endless = ["-A INPUT -j SUB", "-A SUB -j SUB", "-A SUB -j SUB"];
        assert!(matches!(by("DROP", &endless, Protocol::Vrrp), Verdict::Unclear(_)));
    }

    #[test]
    fn what_is_not_understood_is_told_if_it_may_decide() {
        let recent = "-A INPUT -m recent --rcheck --name x --rsource -j DROP";
        let set = "-A INPUT -m set --match-set peers src -j ACCEPT";
        let accept = "-A INPUT -j ACCEPT";
        assert_eq!(by("ACCEPT", &[recent], Protocol::Vrrp), unclear(recent));
        assert_eq!(by("DROP", &[recent], Protocol::Vrrp), dropped(":INPUT DROP [0:0]"));
        assert_eq!(by("DROP", &[recent, set], Protocol::Vrrp), unclear(set));
        assert_eq!(by("DROP", &[set, accept], Protocol::Vrrp), Verdict::Accepted);
        assert_eq!(by("DROP", &[accept, recent], Protocol::Vrrp), Verdict::Accepted);
        let returns = "-A SUB -m set --match-set peers src -j RETURN";
        let sub = ["-A INPUT -j SUB", accept, returns, "-A SUB -j DROP"];
        assert_eq!(by("DROP", &sub, Protocol::Vrrp), unclear(returns));
        let queue = "-A INPUT -j NFQUEUE --queue-num 0";
        assert_eq!(by("ACCEPT", &[queue], Protocol::Vrrp), unclear(queue));
    }

    /// As nft 1.0.6 prints: a base chain `input` with the policy, and these rules in it.
    fn ruleset(policy: &str, rules: &[&str]) -> String {
        let mut all = format!(
            r#"{{"metainfo": {{"version": "1.0.6", "json_schema_version": 1}}}},
            {{"table": {{"family": "inet", "name": "filter", "handle": 1}}}},
            {{"chain": {{"family": "inet", "table": "filter", "name": "sub", "handle": 1}}}},
            {{"chain": {{"family": "inet", "table": "filter", "name": "input", "handle": 2,
                "type": "filter", "hook": "input", "prio": 0, "policy": "{policy}"}}}}"#
        );
        for (chain, expr) in rules.iter().map(|rule| rule.split_once(' ').unwrap()) {
            all += &format!(
                r#", {{"rule": {{"family": "inet", "table": "filter", "chain": "{chain}",
                "handle": 7, "expr": [{expr}]}}}}"#
            );
        }
        format!("{{\"nftables\": [{all}]}}")
    }

    fn by_nft(policy: &str, rules: &[&str], protocol: Protocol) -> Verdict {
        nft(&ruleset(policy, rules), &wanted(protocol)).unwrap()
    }

    const SSH: &str = r#"input {"match": {"op": "==", "left": {"payload":
        {"protocol": "tcp", "field": "dport"}}, "right":
        {"set": [22, 80, {"range": [1000, 2000]}]}}},
        {"counter": {"packets": 0, "bytes": 0}}, {"accept": null}"#;
    const STATES: &str = r#"input {"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set":
        [["invalid", {"drop": null}], ["established", {"accept": null}]]}}}"#;

    #[test]
    fn nft_accepts_by_its_rules_and_drops_by_policy() {
        let policy = dropped("inet filter input: policy drop");
        let rules = [STATES, SSH];
        assert_eq!(by_nft("drop", &rules, Protocol::Vrrp), policy);
        assert_eq!(by_nft("drop", &rules, Protocol::Tcp(443)), policy);
        assert_eq!(by_nft("drop", &rules, Protocol::Tcp(80)), Verdict::Accepted);
        assert_eq!(by_nft("drop", &rules, Protocol::Tcp(1500)), Verdict::Accepted);
        assert_eq!(by_nft("accept", &rules, Protocol::Vrrp), Verdict::Accepted);
        assert!(nft("{}", &wanted(Protocol::Vrrp)).is_err());
        assert_eq!(nft(r#"{"nftables": []}"#, &wanted(Protocol::Vrrp)), Ok(Verdict::Accepted));
    }

    #[test]
    fn nft_matches_are_understood() {
        let accepted = Verdict::Accepted;
        let policy = dropped("inet filter input: policy drop");
        for (left, op, right, verdict) in [
            (r#"{"meta": {"key": "l4proto"}}"#, "==", r#""vrrp""#, &accepted),
            (r#"{"meta": {"key": "l4proto"}}"#, "==", r#"{"set": ["udp", 112]}"#, &accepted),
            (r#"{"meta": {"key": "l4proto"}}"#, "!=", r#""tcp""#, &accepted),
            (r#"{"meta": {"key": "l4proto"}}"#, "==", r#""icmp""#, &policy),
            (r#"{"meta": {"key": "iifname"}}"#, "==", r#""eth*""#, &accepted),
            (r#"{"meta": {"key": "iifname"}}"#, "==", r#"{"set": ["lo", "eth0"]}"#, &policy),
            (r#"{"meta": {"key": "nfproto"}}"#, "==", r#""ipv4""#, &accepted),
            (r#"{"meta": {"key": "protocol"}}"#, "==", r#""ip6""#, &policy),
            (r#"{"ct": {"key": "state"}}"#, "in", r#"["established", "related"]"#, &policy),
            (r#"{"ct": {"key": "state"}}"#, "in", r#""new""#, &accepted),
            (
                r#"{"payload": {"protocol": "ip", "field": "saddr"}}"#,
                "==",
                r#"{"prefix": {"addr": "192.168.0.0", "len": 16}}"#,
                &accepted,
            ),
            (
                r#"{"payload": {"protocol": "ip", "field": "daddr"}}"#,
                "==",
                r#"{"range": ["224.0.0.1", "224.0.0.17"]}"#,
                &policy,
            ),
            (r#"{"payload": {"protocol": "tcp", "field": "dport"}}"#, "!=", "22", &policy),
        ] {
            let rule = format!(
                r#"input {{"match": {{"op": "{op}", "left": {left}, "right": {right}}}}},
                {{"accept": null}}"#
            );
            assert_eq!(by_nft("drop", &[&rule], Protocol::Vrrp), *verdict, "{rule}");
        }
    }

    #[test]
    fn nft_jumps_and_tells_what_is_unclear() {
        let jump = r#"input {"vmap": {"key": {"meta": {"key": "iifname"}}, "data": {"set":
            [["lo", {"accept": null}], ["eth1", {"jump": {"target": "sub"}}]]}}}"#;
        let accept = r#"sub {"match": {"op": "==", "left": {"payload": {"protocol": "ip",
            "field": "protocol"}}, "right": "vrrp"}}, {"accept": null}"#;
        let drop = r#"input {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}"#;
        let rules = [jump, accept, drop];
        assert_eq!(by_nft("accept", &rules, Protocol::Vrrp), Verdict::Accepted);
        let verdict = by_nft("accept", &rules, Protocol::Udp(9));
        assert!(
            matches!(&verdict, Verdict::Dropped(rule) if rule.contains("reject")),
            "{verdict:?}"
        );
        for unknown in [
            r#"input {"match": {"op": "==", "left": {"payload": {"protocol": "th",
                "field": "dport"}}, "right": "@ports"}}, {"accept": null}"#,
            r#"input {"limit": {"rate": 5, "per": "second"}}, {"accept": null}"#,
            r#"input {"xt": null}"#,
        ] {
            let verdict = by_nft("drop", &[unknown], Protocol::Udp(9));
            assert!(matches!(verdict, Verdict::Unclear(_)), "{unknown}");
        }
    }

    #[test]
    fn any_base_chain_may_drop() {
        let second = r#"{"nftables": [{"chain": {"family": "ip", "table": "late", "name": "in",
            "handle": 1, "type": "filter", "hook": "input", "prio": 10, "policy": "accept"}},
            {"rule": {"family": "ip", "table": "late", "chain": "in", "handle": 2,
            "expr": [{"drop": null}]}},"#;
        let both = ruleset("accept", &[SSH]).replacen("{\"nftables\": [", second, 1);
        let verdict = nft(&both, &wanted(Protocol::Tcp(80))).unwrap();
        assert_eq!(verdict, dropped("ip late in handle 2: {\"drop\":null}"));
        let ip6 = both.replace("\"ip\"", "\"ip6\"");
        assert_eq!(nft(&ip6, &wanted(Protocol::Tcp(80))), Ok(Verdict::Accepted));
    }

    #[test]
    fn the_hint_names_the_packet() {
        let vrrp = hint(&wanted(Protocol::Vrrp));
        assert!(vrrp.starts_with("iptables -I INPUT -i eth1 -p 112 -s 192.168.3.101 -j ACCEPT;"));
        assert!(vrrp.contains("--add-rich-rule='rule protocol value=\"vrrp\" accept'"), "{vrrp}");
        let http =
            hint(&Wanted { source: Ipv4Addr::new(192, 0, 2, 1), ..wanted(Protocol::Tcp(80)) });
        assert!(http.contains("-p tcp --dport 80 -j ACCEPT"), "{http}");
        assert!(http.contains("iifname eth1 tcp dport 80 accept"), "{http}");
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let json = ruleset("drop", &[STATES, SSH]);
        let mut state = 1_u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % below
        };
        for _ in 0..3000 {
            for text in [CENTOS6, &json] {
                let mut bytes = text.as_bytes().to_vec();
                for _ in 0..=next(4) {
                    let (from, to) = (next(bytes.len()), next(bytes.len()));
                    bytes[to] = if next(3) == 0 { b"\"-!:/[]{}09@"[next(12)] } else { bytes[from] };
                }
                let text = String::from_utf8_lossy(&bytes);
                _ = iptables(&text, &wanted(Protocol::Tcp(80)));
                _ = nft(&text, &wanted(Protocol::Vrrp));
            }
        }
    }
}
