//! GTID algebra against the servers' own: random sets, random texts, random histories.
//!
//! In: real servers, seeds. Out: laws; a failure names the seed. Must not: know how sets are kept.
//! Read first: src/repl/gtid.rs; facts/repl.md section 6; section 5, scenarios 63, 64, 65.

use tandem::repl::{Beyond, Flavour, GtidSet, Malformed, Position};
use tandem::time::Rng;

use super::*;

const UUIDS: [&str; 4] = [
    "3e11fa47-71ca-11e1-9e33-c80aa9429562",
    "3E11FA47-71CA-11E1-9E33-C80AA9429563",
    "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa",
    "00000000-0000-0000-0000-000000000001",
];
const TAGS: [&str; 4] = ["a", "b_1", "Tag", "_abcdefghijklmnopqrstuvwxyz01234"];
const BLANKS: [&str; 4] = ["", "", " ", "\n "];

/// Texts of sets as people and programs write them.
struct Texts {
    rng: Rng,
    has_tags: bool,
}

impl Texts {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.rng.below(from.len() as u64)).expect("a small number")]
    }

    fn number(&mut self) -> String {
        let number = match self.rng.below(40) {
            0 => (1 << 63) - 2,
            1 => (1 << 63) - 3 - self.rng.below(4),
            _ => 1 + self.rng.below(60),
        };
        // MySQL 5.6 takes such a number for an octal one; it prints none.
        let has_zeros = self.has_tags && self.rng.below(8) == 0;
        if has_zeros { format!("00{number}") } else { number.to_string() }
    }

    fn item(&mut self) -> String {
        let blank = self.pick(&BLANKS);
        match self.rng.below(8) {
            0 | 1 if self.has_tags => format!("{blank}{}", self.pick(&TAGS)),
            0..=3 => format!("{blank}{}{blank}", self.number()),
            // Reversed as often as not: an empty interval.
            _ => format!("{blank}{}{blank}-{blank}{}", self.number(), self.number()),
        }
    }

    fn set(&mut self) -> String {
        let mut text = self.pick(&BLANKS).to_owned();
        for _ in 0..self.rng.below(5) {
            let (comma, uuid) = (self.pick(&["", ",", ",,"]), self.pick(&UUIDS));
            text += if text.trim().is_empty() || comma.is_empty() { "," } else { comma };
            text += self.pick(&BLANKS);
            text += uuid;
            for _ in 0..self.rng.below(5) {
                text += ":";
                text += &self.item();
            }
            // The servers want something behind a tag.
            if self.has_tags {
                text += &format!(":{}", 1 + self.rng.below(60));
            }
            text += self.pick(&BLANKS);
        }
        text
    }

    /// A set's text with one letter changed, left out or put in.
    fn broken(&mut self) -> String {
        let mut letters: Vec<char> = self.set().chars().collect();
        let at = usize::try_from(self.rng.below(letters.len() as u64 + 1)).expect("short");
        let odd = [':', ',', '-', ' ', '9', 'a', 'g', '_', ';', '\t'];
        let letter = odd[usize::try_from(self.rng.below(odd.len() as u64)).expect("short")];
        // 5.6 knows no tags, and this program always does.
        let is_for_all = self.has_tags || !(letter.is_ascii_alphabetic() || letter == '_');
        match self.rng.below(3) {
            0 if at < letters.len() => drop(letters.remove(at)),
            1 if at < letters.len() && is_for_all => letters[at] = letter,
            _ if is_for_all => letters.insert(at, letter),
            _ => {}
        }
        let text: String = letters.into_iter().collect();
        let items = text.split(',').flat_map(|part| part.split(':').skip(1));
        let mut numbers = items.flat_map(|item| item.split('-')).map(str::trim);
        let is_octal = numbers.any(|number| number.starts_with('0') && number.len() > 1);
        if is_octal && !self.has_tags { self.broken() } else { text }
    }
}

fn parse(text: &str) -> Position {
    Position::parse(Flavour::Mysql, text).unwrap_or_else(|wrong| panic!("{text:?}: {wrong}"))
}

/// One row of strings; a value of a set without its line ends.
fn row(conn: &mut mysql::Conn, sql: &str) -> Result<Vec<String>, mysql::Error> {
    let row: mysql::Row = conn.query_first(sql)?.expect("one row");
    Ok((0..row.len())
        .map(|index| row.get::<Option<String>, _>(index).flatten().unwrap_or_default())
        .map(|text| text.replace('\n', ""))
        .collect())
}

pub(super) fn sets_are_compared_as_by_the_server(recipe: &'static Recipe) {
    if recipe.flavour == "mariadb" {
        return;
    }
    let server = Server::new(recipe, pair::free_address(), false);
    let mut conn = server.connect(ADMIN);
    let mut texts = Texts { rng: Rng::new(2026), has_tags: recipe.flavour == "mysql97" };
    let began = Clock::now();
    let mut answers = [0, 0];
    for _ in 0..40 {
        let pairs: Vec<(String, String)> = (0..80).map(|_| (texts.set(), texts.set())).collect();
        let expressions = pairs.iter().map(|(a, b)| {
            format!(
                "GTID_SUBSET('{a}','{b}'), GTID_SUBSET('{b}','{a}'), GTID_SUBTRACT('{a}','{b}'), \
                 GTID_SUBTRACT('{b}','{a}'), GTID_SUBTRACT('{a},{b}','')"
            )
        });
        let sql = format!("SELECT {}", expressions.collect::<Vec<_>>().join(", "));
        let said = row(&mut conn, &sql).expect("every set is one");
        for ((a, b), said) in pairs.iter().zip(said.chunks(5)) {
            let (one, two) = (parse(a), parse(b));
            let ours = [
                u8::from(two.contains(&one)).to_string(),
                u8::from(one.contains(&two)).to_string(),
                one.beyond(&two).text,
                two.beyond(&one).text,
                one.union(&two).to_string(),
            ];
            assert_eq!(ours, said, "of {a:?} and {b:?}");
            answers[usize::from(two.contains(&one))] += 1;
            // The servers do not count; but what is in one is in both, or in it alone.
            let counts = [&one, &two].map(Position::transactions);
            if counts.iter().all(|count| *count < 1 << 32) {
                let both = counts[0] - one.beyond(&two).transactions;
                assert_eq!(both, counts[1] - two.beyond(&one).transactions, "{a:?}, {b:?}");
            }
            assert_eq!(parse(&one.to_string()), one, "what is printed is read again");
        }
    }
    println!("{}: 3200 pairs of sets, {answers:?}, {:?}", recipe.flavour, began.elapsed());
    assert!(answers.iter().all(|count| *count > 100), "a law that is never tried: {answers:?}");
    texts_are_refused_as_by_the_server(&mut conn, &mut texts);
    ten_thousand_intervals_are_compared(recipe, &mut conn);
}

fn texts_are_refused_as_by_the_server(conn: &mut mysql::Conn, texts: &mut Texts) {
    let mut refused = 0;
    for _ in 0..1500 {
        let text = texts.broken();
        let said = row(conn, &format!("SELECT GTID_SUBTRACT('{text}','')"));
        match (GtidSet::parse(&text), said) {
            (Ok(set), Ok(said)) => assert_eq!(set.to_string(), said[0], "{text:?}"),
            (Err(Malformed(_)), Err(_)) => refused += 1,
            // 5.6 takes a missing number for zero, as no other does.
            (Err(Malformed(item)), Ok(_)) if !texts.has_tags && item.ends_with('-') => {}
            (ours, said) => panic!("{text:?}: ours {ours:?}, the server's {said:?}"),
        }
    }
    assert!(refused > 100, "{refused} refused");
}

/// Scenario 64; the figure is for a person, since this machine is shared.
fn ten_thousand_intervals_are_compared(recipe: &Recipe, conn: &mut mysql::Conn) {
    let holes = |first: u32| {
        let items: Vec<String> = (0..10_000).map(|n| (first + 3 * n).to_string()).collect();
        format!("{}:{}", UUIDS[0], items.join(":"))
    };
    let (a, b) = (holes(1), holes(2));
    let began = Clock::now();
    let (one, two) = (parse(&a), parse(&b));
    let union = one.union(&two);
    let Beyond { text, transactions } = union.beyond(&two);
    let is_contained = union.contains(&one) && !one.contains(&union);
    println!("{}: sets of 10,000 intervals took {:?}", recipe.flavour, began.elapsed());
    assert!(is_contained);
    assert_eq!((text, transactions), (one.to_string(), 10_000));
    let sql = format!("SELECT GTID_SUBTRACT('{a},{b}',''), GTID_SUBTRACT('{union}','{b}')");
    assert_eq!(row(conn, &sql).expect("sets"), [union.to_string(), one.to_string()]);
}

/// A history of several domains, each written by several servers in turn.
struct History {
    written: Vec<(u32, u32, u64)>,
}

impl History {
    /// Writes it into the binlog of `server`.
    fn write(server: &Server, rng: &mut Rng, length: u64) -> Self {
        let mut conn = server.connect(ADMIN);
        let mut written: Vec<(u32, u32, u64)> = Vec::new();
        for _ in 0..length {
            let below = |bound: u64, rng: &mut Rng| u32::try_from(rng.below(bound)).expect("small");
            let (domain, writer) = (5 + below(3, rng), 1 + below(3, rng));
            let sql = format!("SET gtid_domain_id={domain}, server_id={writer}");
            conn.query_drop(sql).expect("an administrator");
            conn.query_drop("INSERT INTO app.t VALUES (NULL)").expect("a write");
            let last = written.iter().rev().find(|(it, _, _)| *it == domain);
            written.push((domain, writer, last.map_or(1, |(_, _, last)| last + 1)));
        }
        Self { written }
    }

    fn has(&self, gtid: (u32, u32, u64)) -> bool {
        self.written.contains(&gtid)
    }
}

/// Scenario 65: what MariaDB says by waiting, and by refusing a replica.
pub(super) fn positions_are_compared_as_by_the_server(recipe: &'static Recipe) {
    if recipe.flavour != "mariadb" {
        return;
    }
    let mut pair = Pair::new(recipe);
    pair.host_a.job(Job::Promote).expect("A is promoted");
    pair.a.run("CREATE DATABASE app");
    pair.a.run("CREATE TABLE app.t (id INT AUTO_INCREMENT PRIMARY KEY) ENGINE=InnoDB");
    let mut rng = Rng::new(65);
    let history = History::write(&pair.a, &mut rng, 40);
    let text = pair.a.value("SELECT @@GLOBAL.gtid_binlog_state");
    let state = Position::parse(Flavour::Mariadb, &text).expect("a state");
    let mut entries: Vec<&str> = text.split(',').collect();
    let printed = state.to_string();
    let mut ours: Vec<&str> = printed.split(',').collect();
    entries.sort_unstable();
    ours.sort_unstable();
    assert_eq!(ours, entries, "it is printed as it was read");
    waiting_agrees(&pair.b, &mut rng);
    for is_strict in [1, 0] {
        pair.b.run(&format!("SET GLOBAL gtid_strict_mode={is_strict}"));
        refusals_agree(&pair, &history, &state, &mut rng);
    }
}

/// MASTER_GTID_WAIT compares numbers alone; where the servers are the same, so do we.
fn waiting_agrees(server: &Server, rng: &mut Rng) {
    let mut conn = server.connect(ADMIN);
    let mut counts = [0, 0];
    for _ in 0..20 {
        let position = |rng: &mut Rng| {
            let entries = (5..8).filter(|_| rng.below(4) > 0).collect::<Vec<_>>();
            let entry = |domain: &u32| format!("{domain}-{}-{}", 1, 1 + rng.below(9));
            entries.iter().map(entry).collect::<Vec<_>>().join(",")
        };
        let had = position(rng);
        conn.query_drop(format!("SET GLOBAL gtid_slave_pos='{had}'")).expect("no replica");
        let mine = Position::parse(Flavour::Mariadb, &had).expect("a position");
        let wanted: Vec<String> = (0..40).map(|_| position(rng)).collect();
        let waits = wanted.iter().map(|it| format!("MASTER_GTID_WAIT('{it}', 0)"));
        let sql = format!("SELECT {}", waits.collect::<Vec<_>>().join(", "));
        for (text, said) in wanted.iter().zip(row(&mut conn, &sql).expect("positions")) {
            let wanted = Position::parse(Flavour::Mariadb, text).expect("a position");
            assert_eq!(mine.contains(&wanted), said == "0", "{had} has {text}: {said}");
            counts[usize::from(said == "0")] += 1;
        }
    }
    assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
}

/// What the source refuses (1236) is what we say it has not; of what it never wrote although its
/// numbers went further, only the source itself knows.
fn refusals_agree(pair: &Pair, history: &History, state: &Position, rng: &mut Rng) {
    let mut conn = pair.b.connect(ADMIN);
    let (mut counts, mut holes) = ([0, 0], 0);
    for round in 0..24 {
        let gtid = match rng.below(3) {
            0 => {
                let index = usize::try_from(rng.below(history.written.len() as u64));
                history.written[index.expect("small")]
            }
            1 => (5, 1 + (round % 3), 1 + rng.below(20)),
            _ => (6 + round % 2, 9, 1 + rng.below(20)),
        };
        let (domain, writer, sequence) = gtid;
        let text = format!("{domain}-{writer}-{sequence}");
        let rest = state.to_string();
        // Of the other domains it has everything.
        let others = rest.split(',').filter(|it| !it.starts_with(&format!("{domain}-")));
        let mut last = std::collections::BTreeMap::new();
        for entry in others {
            let numbers: Vec<u64> = entry.split('-').map(|n| n.parse().expect("number")).collect();
            let best = last.entry(numbers[0]).or_insert((numbers[2], entry));
            *best = (*best).max((numbers[2], entry));
        }
        let mut position: Vec<&str> = last.values().map(|(_, entry)| *entry).collect();
        position.push(&text);
        let position = position.join(",");
        conn.query_drop("STOP SLAVE").expect("an administrator");
        conn.query_drop(format!("SET GLOBAL gtid_slave_pos='{position}'")).expect("a position");
        let (user, password) = (ADMIN.0, ADMIN.1.replace('\\', "\\\\").replace('\'', "\\'"));
        let port = pair.a.address.port();
        conn.query_drop(format!(
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='{user}', \
             MASTER_PASSWORD='{password}', MASTER_USE_GTID=slave_pos"
        ))
        .expect("an administrator");
        conn.query_drop("START SLAVE IO_THREAD").expect("an administrator");
        pair.a.run("INSERT INTO app.t VALUES (NULL)");
        let is_accepted = is_accepted(&mut conn, &last_of(&pair.a, 0));
        let wanted = Position::parse(Flavour::Mariadb, &position).expect("a position");
        if state.contains(&wanted) && !history.has(gtid) {
            holes += 1;
            continue;
        }
        assert_eq!(state.contains(&wanted), is_accepted, "{state} has {position}");
        counts[usize::from(is_accepted)] += 1;
    }
    println!("mariadb: {counts:?} refused and accepted, {holes} holes");
    assert!(counts.iter().all(|count| *count > 3), "{counts:?}");
}

/// The last GTID of a domain.
fn last_of(server: &Server, domain: u32) -> String {
    let position = server.value("SELECT @@GLOBAL.gtid_binlog_pos");
    let found = position.split(',').find(|entry| entry.starts_with(&format!("{domain}-")));
    found.expect("it was written in").to_owned()
}

/// Whether the source sends from there on, up to `awaited`, or says why not.
fn is_accepted(conn: &mut mysql::Conn, awaited: &str) -> bool {
    let began = Clock::now();
    while began.elapsed() < Duration::from_secs(10) {
        let status = conn.query_first("SHOW SLAVE STATUS").expect("it asks");
        let status: mysql::Row = status.expect("a source is configured");
        let text = |name: &str| status.get::<Option<String>, _>(name).flatten().unwrap_or_default();
        match text("Last_IO_Errno").as_str() {
            "0" if text("Gtid_IO_Pos").split(',').any(|entry| entry == awaited) => return true,
            "0" => sleep(Duration::from_millis(2)),
            "1236" => return false,
            other => panic!("error {other}: {}", text("Last_IO_Error")),
        }
    }
    panic!("no answer");
}
