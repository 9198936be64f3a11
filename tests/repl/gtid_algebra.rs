//! Laws of GTID sets: what is computed here is what the servers compute, on random sets.
//!
//! In: a real server, seeded sets. Out: laws of facts/repl.md section 6. Must not: take long.

use tandem::repl::{Flavour, GtidSet, Position};
use tandem::time::Rng;

use super::*;

const UUIDS: [&str; 3] = [
    "3e11fa47-71ca-11e1-9e33-c80aa9429562",
    "AAAAAAAA-71ca-11e1-9e33-c80aa9429562",
    "bbbbbbbb-0000-11e1-9e33-c80aa9429562",
];
const TAGS: [&str; 3] = ["blue", "Green", "_x9"];

fn pick<'a>(rng: &mut Rng, all: &[&'a str]) -> &'a str {
    all[usize::try_from(rng.below(all.len() as u64)).expect("small")]
}

/// A set as anybody might write it: unsorted, overlapping, reversed, with blanks and empty parts.
fn random_set(rng: &mut Rng, has_tags: bool) -> String {
    let mut parts = Vec::new();
    for _ in 0..rng.below(5) {
        let mut part = pick(rng, &UUIDS).to_owned();
        for _ in 0..rng.below(5) {
            if has_tags && rng.below(4) == 0 {
                part += &format!(":{}", pick(rng, &TAGS));
            }
            let (first, length) = (1 + rng.below(30), rng.below(12));
            // MySQL 5.6 takes blanks in fewer places, and reads 0022 as an octal number.
            let blank = if has_tags && rng.below(8) == 0 { " " } else { "" };
            part += &match rng.below(6) {
                0 => format!(":{first}-{}", first.saturating_sub(length).max(1)),
                1 if has_tags => format!(":{blank}{first:04}"),
                _ => format!(":{first}{blank}-{}", first + length),
            };
        }
        parts.push(part);
        if rng.below(10) == 0 {
            parts.push(String::new());
        }
    }
    let blank = if has_tags { ",\n " } else { ",\n" };
    parts.join(if rng.below(4) == 0 { blank } else { "," })
}

fn one_line(text: &str) -> String {
    text.replace('\n', "")
}

pub(super) fn gtid_sets_are_computed_as_by_the_server(recipe: &'static Recipe) {
    const SETS: usize = 2000;
    if recipe.flavour == "mariadb" {
        return;
    }
    let pair = Pair::new(recipe);
    let mut conn = pair.a.connect(ADMIN);
    let mut rng = Rng::new(20_261_126);
    let (mut contained, mut subtracted) = (0, 0);
    for _ in 0..SETS {
        let [a, b] = [(); 2].map(|()| random_set(&mut rng, recipe.flavour == "mysql97"));
        let sql = format!(
            "SELECT GTID_SUBSET('{a}','{b}'), GTID_SUBTRACT('{a}','{b}'), \
             GTID_SUBTRACT('{a},{b}','')"
        );
        let answer: Option<(u8, String, String)> = conn.query_first(sql).expect("it computes");
        let (is_subset, difference, union) = answer.expect("a row");
        let parse = |text: &str| GtidSet::parse(text).expect("the server took it");
        let (ours, theirs) = (parse(&a), parse(&b));
        assert_eq!(theirs.contains(&ours), is_subset == 1, "{a:?} in {b:?}");
        assert_eq!(ours.subtract(&theirs).to_string(), one_line(&difference), "{a:?} - {b:?}");
        assert_eq!(ours.union(&theirs).to_string(), one_line(&union), "{a:?} + {b:?}");
        contained += usize::from(is_subset == 1);
        subtracted += usize::from(!difference.is_empty());
    }
    assert!(contained > SETS / 20 && subtracted > SETS / 4, "{contained}, {subtracted}");
}

/// What the server refuses is refused here too.
pub(super) fn what_is_no_gtid_set_is_so_for_the_server_too(recipe: &'static Recipe) {
    if recipe.flavour == "mariadb" {
        return;
    }
    let pair = Pair::new(recipe);
    let mut conn = pair.a.connect(ADMIN);
    let u = UUIDS[0];
    let has_tags = recipe.flavour == "mysql97";
    for (text, is_tagged) in [
        (format!("{u}:0"), false),
        (format!("{u}:-1"), false),
        (format!("{u}:9223372036854775807"), false),
        (format!("{u}:9223372036854775806"), false),
        (format!("{u}:1;2"), false),
        (format!("{}:1", &u[..35]), false),
        (format!("{u}:tag:1"), true),
        (format!("{u}:1tag:1"), true),
        (format!("{u}:{}:1", "t".repeat(32)), true),
        (format!("{u}:{}:1", "t".repeat(33)), true),
        ("junk".to_owned(), false),
    ] {
        if is_tagged && !has_tags {
            continue;
        }
        let asked: Result<Option<u8>, _> =
            conn.query_first(format!("SELECT GTID_SUBSET('{text}','')"));
        assert_eq!(GtidSet::parse(&text).is_ok(), asked.is_ok(), "{text}: {asked:?}");
    }
}

/// Scenario 64: a position of 10,000 intervals.
pub(super) fn a_position_of_ten_thousand_intervals_is_compared(recipe: &'static Recipe) {
    if recipe.flavour != "mysql97" {
        return;
    }
    let text = |step: usize| {
        let items: Vec<String> = (0..10_000).map(|n| (n * 4 + step).to_string()).collect();
        format!("{}:{}", UUIDS[0], items.join(":"))
    };
    let (a, b) = (text(1), text(3));
    let began = Clock::now();
    let parse = |text: &str| Position::parse(Flavour::Mysql, text).expect("a position");
    let (ours, theirs) = (parse(&a), parse(&b));
    let beyond = ours.union(&theirs).beyond(&theirs);
    println!("two sets of 10,000 intervals: parsed, joined, subtracted in {:?}", began.elapsed());
    assert_eq!((beyond.transactions, beyond.text == ours.to_string()), (10_000, true));
    let pair = Pair::new(recipe);
    let same: Option<u8> = pair
        .a
        .connect(ADMIN)
        .query_first(format!("SELECT GTID_SUBSET('{}','{a}')", beyond.text))
        .expect("the server computes");
    assert_eq!(same, Some(1));
}
