//! The reference of tandem.toml: made out of the configuration's own structs, and compared with
//! what `tandem help config` prints (`UPDATE=1` rewrites that; its diff is reviewed as behaviour).
//!
//! In: each struct's source (names, types, what is said above them) and serde (what is accepted,
//! what is needed, what holds by default). Out: src/config/reference.txt. A key that nothing is
//! said of fails here, one that serde does not know, and one of which nobody knows how it is
//! written.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tandem::config::{self, Config, EXAMPLE, SECTIONS, Vip};
use tandem::console::render::fold;
use tandem::{console, peer, repl, sql, vrrp, web};

/// What stands above all sections: the forms of values.
const FORMS: &str = "\
tandem.toml, section by section; the same text on both hosts. `tandem help
config NAME` tells one section or one key, `tandem example` prints a file to
begin with, `tandem check` reads one, `tandem config` shows what is in use.
How values are written:
  duration        \"200ms\", \"1s\", \"5m\", \"8h\"
  size            \"512\", \"64KiB\", \"16MiB\", \"1GiB\"
  rate            \"10r/s\", \"30r/m\"
  address/prefix  \"192.168.3.100/24\"
  address:port    \"127.0.0.1:1234\", \"[::1]:1234\"
  network         \"192.168.3.0/24\", or one address
  place           address:port, or \"unix:/run/tandem-php.sock\"
  secret          \"the text\", or { file = \"/path\" }, a file of mode 0600
";

/// How a type is written, and one value of it.
const SHAPES: &[(&str, &str, &str)] = &[
    ("String", "text", "'x'"),
    ("bool", "true or false", "true"),
    ("u8", "number", "1"),
    ("u16", "number", "1"),
    ("u32", "number", "1"),
    ("usize", "number", "1"),
    ("Version", "number", "2"),
    ("Duration", "duration", "'1s'"),
    ("ByteCount", "size", "'1KiB'"),
    ("limit::Rate", "rate", "'1r/s'"),
    ("Secret", "secret", "'x'"),
    ("Ipv4Addr", "IPv4 address", "'10.0.0.1'"),
    ("Cidr", "address/prefix", "'10.0.0.1/24'"),
    ("IpCidr", "address/prefix", "'10.0.0.1/24'"),
    ("gate::Network", "network", "'10.0.0.0/24'"),
    ("SocketAddr", "address:port", "'127.0.0.1:1'"),
    ("Place", "place", "'127.0.0.1:1'"),
    ("Vip", "address/prefix or table", "'10.0.0.1/24'"),
    ("User", "[[sql.user]]", "{}"),
    ("access::Location", "[[web.location]]", "{}"),
    ("Location", "[[web.site.location]]", "{}"),
    ("site::Redirect", "[[web.redirect]]", "{}"),
    ("Redirect", "[[web.site.redirect]]", "{}"),
    ("site::Config", "[[web.site]]", "{}"),
    ("BTreeMap<String, String>", "table of texts", "{}"),
    ("BTreeMap<String, u16>", "table of numbers", "{}"),
];
/// Types of which serde tells the words.
const WORDS: &[&str] =
    &["Transport", "Kind", "Durability", "ServerTls", "https::Protocol", "Balance", "Sticky"];

/// A section: its heading, and the struct that is it.
struct Section {
    heading: &'static str,
    source: &'static str,
    item: &'static str,
    /// What a text means with every default filled in, or why it is refused.
    read: fn(&str) -> Result<toml::Table, String>,
}

/// A field as its struct writes it.
struct Field {
    name: String,
    kind: String,
    about: String,
}

fn sections() -> Vec<Section> {
    let section = |heading, source, item, read| Section { heading, source, item, read };
    let config = include_str!("../src/config.rs");
    let (sql, web) = (include_str!("../src/sql/mod.rs"), include_str!("../src/web/mod.rs"));
    let (site, access) = (include_str!("../src/web/site.rs"), include_str!("../src/web/access.rs"));
    vec![
        section("[[host]], twice", config, "Host", read::<config::Host>),
        section("[link.outside], [link.inside]", config, "Link", read::<config::Link>),
        section("[[link.outside.vip]], [[link.inside.vip]]", config, "Vip", read::<Vip>),
        section("[vrrp]", include_str!("../src/vrrp/mod.rs"), "Config", read::<vrrp::Config>),
        section("[peer]", include_str!("../src/peer.rs"), "Config", read::<peer::Config>),
        section("[repl]", include_str!("../src/repl/mod.rs"), "Config", read::<repl::Config>),
        section("[sql]", sql, "Config", read::<sql::Config>),
        section("[[sql.user]]", sql, "WrittenUser", read::<sql::User>),
        section("[web]", web, "Config", read::<web::Config>),
        section("[[web.location]]", access, "Location", read::<web::access::Location>),
        section("[[web.redirect]]", site, "Redirect", read::<web::site::Redirect>),
        section("[[web.site]]", site, "Config", read::<web::site::Config>),
        section("[console]", include_str!("../src/console/mod.rs"), "Config", {
            read::<console::Config>
        }),
    ]
}

fn read<T: DeserializeOwned + Serialize>(text: &str) -> Result<toml::Table, String> {
    let value: T = toml::from_str(text).map_err(|error| error.to_string())?;
    let value = toml::Value::try_from(value).expect("what was read can be written");
    // What has a short form has no defaults.
    Ok(value.as_table().cloned().unwrap_or_default())
}

impl Section {
    /// What is said above the struct, without the name of the section that it begins with.
    fn about(&self) -> String {
        let above: Vec<&str> = self.above().collect();
        let lines = above.iter().rev().take_while(|line| line.starts_with(['#', '/']));
        let lines: Vec<&str> = lines.filter_map(|line| line.strip_prefix("/// ")).collect();
        let text = lines.into_iter().rev().collect::<Vec<_>>().join(" ");
        let is_named = text.starts_with("Section `[") || text.starts_with("`[");
        let text = text.split_once("`: ").filter(|_| is_named).map_or(text.as_str(), |it| it.1);
        let (first, rest) = text.split_at_checked(1).expect("a struct says what it is");
        first.to_uppercase() + rest
    }

    fn is_head(&self, line: &str) -> bool {
        line.trim_start_matches("pub ") == format!("struct {} {{", self.item)
    }

    fn above(&self) -> impl Iterator<Item = &str> {
        self.source.lines().take_while(|line| !self.is_head(line))
    }

    /// The fields that can be written, in their order.
    fn fields(&self) -> Vec<Field> {
        let body = self.source.lines().skip_while(|line| !self.is_head(line)).skip(1);
        let (mut fields, mut about, mut name, mut is_skipped) = (Vec::new(), vec![], None, false);
        for line in body.map(str::trim).take_while(|line| *line != "}") {
            if let Some(text) = line.strip_prefix("///") {
                about.push(text.trim());
            } else if line.starts_with("#[") {
                is_skipped |= line.contains("(skip");
                name = line.split("rename = \"").nth(1).and_then(|rest| rest.split('"').next());
            } else {
                let field = line.trim_start_matches("pub ").trim_end_matches(',');
                let (own, kind) = field.split_once(": ").expect(line);
                let name = name.take().unwrap_or(own).to_owned();
                let about = std::mem::take(&mut about).join(" ");
                if !std::mem::take(&mut is_skipped) {
                    fields.push(Field { name, kind: kind.to_owned(), about });
                }
            }
        }
        assert!(!fields.is_empty(), "{}: the struct {} is not found", self.heading, self.item);
        fields
    }

    /// The names that serde takes.
    fn accepted(&self) -> BTreeSet<String> {
        let why = (self.read)("'?' = 0").expect_err("nothing is named so");
        expected(&why, "unknown field").into_iter().collect()
    }

    /// The keys that have to be there, and what every other one is without being written.
    fn defaults(&self, fields: &[Field]) -> (BTreeSet<String>, toml::Table) {
        let (mut needed, mut text) = (BTreeSet::new(), String::new());
        loop {
            match (self.read)(&text) {
                Ok(defaults) => return (needed, defaults),
                Err(why) => {
                    let missing = why.split("missing field `").nth(1);
                    let Some(name) = missing.and_then(|rest| rest.split('`').next()) else {
                        return (needed, toml::Table::new());
                    };
                    let field = fields.iter().find(|it| it.name == name).expect(name);
                    let _infallible = writeln!(text, "{name} = {}", sample(&field.kind));
                    assert!(needed.insert(name.to_owned()), "{name}: {why}");
                }
            }
        }
    }

    fn shape(&self, name: &str, kind: &str) -> String {
        if let Some(inner) = inner(kind, "Option") {
            return self.shape(name, inner);
        }
        if let Some(inner) = inner(kind, "Vec") {
            return format!("list of {}", self.shape(name, inner));
        }
        if WORDS.contains(&kind) {
            let tried = [format!("{name} = '?'"), format!("{name} = ['?']")];
            let words = tried.iter().filter_map(|text| (self.read)(text).err());
            let words =
                words.map(|why| expected(&why, "unknown variant")).find(|it| !it.is_empty());
            let words: Vec<_> = words.expect(kind).iter().map(|word| format!("{word:?}")).collect();
            return words.join(" or ");
        }
        shape_of(kind).0.to_owned()
    }

    fn text(&self) -> String {
        let fields = self.fields();
        let names: BTreeSet<String> = fields.iter().map(|field| field.name.clone()).collect();
        assert_eq!(names, self.accepted(), "{}: what is told and what is read", self.heading);
        let (needed, defaults) = self.defaults(&fields);
        let mut text = format!("{}\n", self.heading);
        let mut put = |line: &str| {
            let _infallible = writeln!(text, "{line}");
        };
        fold(&self.about(), "  ").iter().for_each(|line| put(line));
        for Field { name, kind, about } in &fields {
            assert!(about.ends_with('.'), "{}: {name} says {about:?}", self.heading);
            let default = match (needed.contains(name), defaults.get(name)) {
                (true, _) => "required".to_owned(),
                (false, Some(value)) => format!("default {value}"),
                (false, None) => "no default".to_owned(),
            };
            let head = format!("{name} ({}, {default})", self.shape(name, kind));
            let lines = fold(&head, "      ");
            put(&format!("  {}", lines[0].trim_start()));
            lines[1..].iter().for_each(|line| put(line));
            fold(about, "      ").iter().for_each(|line| put(line));
        }
        text
    }
}

fn inner<'a>(kind: &'a str, outer: &str) -> Option<&'a str> {
    kind.strip_prefix(outer)?.strip_prefix('<')?.strip_suffix('>')
}

fn shape_of(kind: &str) -> (&'static str, &'static str) {
    let found = SHAPES.iter().find(|(name, ..)| *name == kind);
    let (_, shape, sample) = found.unwrap_or_else(|| panic!("how is a {kind} written? see SHAPES"));
    (shape, sample)
}

/// A value of the type, for a key that cannot be left out.
fn sample(kind: &str) -> String {
    match inner(kind, "Vec") {
        Some(inner) => format!("[{}]", shape_of(inner).1),
        None => shape_of(kind).1.to_owned(),
    }
}

/// What serde would have taken in place of `?`.
fn expected(why: &str, what: &str) -> Vec<String> {
    let rest = why.split(&format!("{what} `?`")).nth(1).unwrap_or_default();
    let line = rest.lines().next().unwrap_or_default();
    line.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_reference_is_what_the_structs_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/reference.txt");
    let sections: Vec<String> = sections().iter().map(Section::text).collect();
    let made = format!("{FORMS}\n{}", sections.join("\n"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &made).expect("writes the reference");
    }
    let told = std::fs::read_to_string(path).expect("reads the reference");
    assert!(told == made, "the keys changed: run UPDATE=1 and review the diff\n{made}");
}

#[test]
fn every_section_that_is_read_is_told() {
    let why = Config::parse(&format!("'?' = 0\n{EXAMPLE}")).expect_err("an unknown section");
    let read = expected(&why.to_string(), "unknown field");
    assert_eq!(read, SECTIONS);
    for name in SECTIONS {
        let is_it = |it: &Section| {
            let first = it.heading.trim_start_matches('[');
            first.split(['.', ']']).next() == Some(name)
        };
        assert!(sections().iter().any(is_it), "{name}");
    }
}
