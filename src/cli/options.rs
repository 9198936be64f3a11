//! Options of the mysql-utilities applets: one table makes the parser and `--help`.
//!
//! In: arguments. Out: `Parsed`, or what is wrong with them. Must not: interpret a value.
//! Read first: facts/repl.md section 1; optparse of Python 2.7, whose manners these are: unique
//! beginnings of long options, clusters of short ones, options after arguments.

use std::fmt::Write as _;

/// What an applet is called with.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) program: &'static str,
    /// Behind "Usage: ".
    pub(super) usage: &'static str,
    pub(super) purpose: &'static str,
    pub(super) options: &'static [&'static [Opt]],
}

/// One option.
#[derive(Debug)]
pub(super) struct Opt {
    pub(super) long: &'static str,
    pub(super) short: Option<char>,
    /// What its value is called; `None` for a flag.
    pub(super) value: Option<&'static str>,
    pub(super) fate: Fate,
    pub(super) help: &'static str,
}

/// What becomes of an option that is given. None is ignored in silence.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    Used,
    /// Accepted; the clause says why it changes nothing.
    Idle(&'static str),
    /// Wrong usage; the clause says why.
    Refused(&'static str),
}

/// The arguments, taken apart.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    given: Vec<(&'static str, String)>,
    pub(super) arguments: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Parsed {
    /// The last value given, as optparse stores it.
    pub(super) fn value(&self, long: &str) -> Option<&str> {
        self.given.iter().rev().find(|(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    pub(super) fn has(&self, long: &str) -> bool {
        self.count(long) > 0
    }

    pub(super) fn count(&self, long: &str) -> usize {
        self.given.iter().filter(|(name, _)| *name == long).count()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &str> {
        self.given.iter().map(|(_, value)| value.as_str())
    }

    /// A whole number, or the words that optparse has for what is none.
    pub(super) fn number(&self, long: &str, default: u64) -> Result<u64, String> {
        self.value(long).map_or(Ok(default), |text| {
            text.parse().map_err(|_| format!("option --{long}: invalid integer value: '{text}'"))
        })
    }
}

pub(super) const fn flag(long: &'static str, short: Option<char>, help: &'static str) -> Opt {
    Opt { long, short, value: None, fate: Fate::Used, help }
}

pub(super) const fn value(long: &'static str, name: &'static str, help: &'static str) -> Opt {
    Opt { long, short: None, value: Some(name), fate: Fate::Used, help }
}

impl Opt {
    /// With a letter too.
    pub(super) const fn or(self, letter: char) -> Self {
        Self { short: Some(letter), ..self }
    }

    pub(super) const fn idle(self, why: &'static str) -> Self {
        Self { fate: Fate::Idle(why), ..self }
    }

    pub(super) const fn refused(self, why: &'static str) -> Self {
        Self { fate: Fate::Refused(why), ..self }
    }
}

/// What every applet takes.
pub(super) const EVERYWHERE: &[Opt] = &[
    flag("version", None, "show the version and exit"),
    flag("help", Some('h'), "show this text and exit"),
    flag("license", None, "show the license and exit"),
    flag("verbose", Some('v'), "say more; -vv and -vvv say most"),
    flag("quiet", Some('q'), "print errors and results only"),
    value("ssl-ca", "FILE", "(refused)").refused(NO_TLS),
    value("ssl-cert", "FILE", "(refused)").refused(NO_TLS),
    value("ssl-key", "FILE", "(refused)").refused(NO_TLS),
    value("ssl", "0|1", "0 is accepted; 1 is refused, as are --ssl-ca, --ssl-cert, --ssl-key"),
];

pub(super) const NO_TLS: &str = "this program connects without TLS, so that the option would \
    promise what is not kept: use the pair's own link, or a socket";

pub(super) fn parse(spec: &Spec, arguments: &[String]) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            parsed.arguments.extend(rest.by_ref().cloned());
        } else if let Some(long) = argument.strip_prefix("--") {
            let (name, attached) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let option = find_long(spec, name)?;
            let said = format!("--{}", option.long);
            let value = match (option.value, attached) {
                (Some(_), Some(value)) => value,
                (Some(_), None) => next_value(&said, &mut rest)?,
                (None, None) => String::new(),
                (None, Some(_)) => return Err(format!("{said} option does not take a value")),
            };
            take(&mut parsed, option, value)?;
        } else if argument.len() > 1 && argument.starts_with('-') {
            cluster(spec, &argument[1..], &mut rest, &mut parsed)?;
        } else {
            parsed.arguments.push(argument.clone());
        }
    }
    Ok(parsed)
}

/// "-vvq", or "-lVALUE".
fn cluster(
    spec: &Spec,
    letters: &str,
    rest: &mut std::slice::Iter<'_, String>,
    parsed: &mut Parsed,
) -> Result<(), String> {
    for (index, letter) in letters.char_indices() {
        let said = format!("-{letter}");
        let option = all(spec).find(|option| option.short == Some(letter));
        let option = option.ok_or_else(|| format!("no such option: {said}"))?;
        if option.value.is_none() {
            take(parsed, option, String::new())?;
            continue;
        }
        let attached = &letters[index + letter.len_utf8()..];
        let value =
            if attached.is_empty() { next_value(&said, rest)? } else { attached.to_owned() };
        return take(parsed, option, value);
    }
    Ok(())
}

fn next_value(said: &str, rest: &mut std::slice::Iter<'_, String>) -> Result<String, String> {
    rest.next().cloned().ok_or_else(|| format!("{said} option requires an argument"))
}

fn take(parsed: &mut Parsed, option: &'static Opt, value: String) -> Result<(), String> {
    match option.fate {
        Fate::Refused(why) => return Err(format!("--{} is refused: {why}.", option.long)),
        Fate::Idle(why) => {
            parsed.warnings.push(format!("--{} changes nothing: {why}.", option.long));
        }
        Fate::Used => {}
    }
    if option.long == "ssl" && value != "0" {
        return Err(format!("--ssl is refused: {NO_TLS}."));
    }
    parsed.given.push((option.long, value));
    Ok(())
}

fn all(spec: &Spec) -> impl Iterator<Item = &'static Opt> {
    spec.options.iter().chain(std::iter::once(&EVERYWHERE)).flat_map(|table| table.iter())
}

fn find_long(spec: &Spec, name: &str) -> Result<&'static Opt, String> {
    if let Some(exact) = all(spec).find(|option| option.long == name) {
        return Ok(exact);
    }
    let mut matches: Vec<_> = all(spec).filter(|option| option.long.starts_with(name)).collect();
    match (matches.pop(), matches.is_empty()) {
        (Some(only), true) if !name.is_empty() => Ok(only),
        (Some(last), _) if !name.is_empty() => {
            matches.push(last);
            let mut names: Vec<_> = matches.iter().map(|o| format!("--{}", o.long)).collect();
            names.sort();
            Err(format!("ambiguous option: --{name} ({}?)", names.join(", ")))
        }
        _ => Err(format!("no such option: --{name}")),
    }
}

/// The text of `--help`.
pub(super) fn help(spec: &Spec, epilog: &str) -> String {
    let mut text = format!("Usage: {}\n\n{}\n\nOptions:\n", spec.usage, spec.purpose);
    for option in all(spec) {
        let mut names = String::new();
        if let Some(letter) = option.short {
            let _infallible = write!(names, "-{letter}, ");
        }
        let _infallible = write!(names, "--{}", option.long);
        if let Some(value) = option.value {
            let _infallible = write!(names, "={value}");
        }
        let help = match option.fate {
            Fate::Used => option.help.to_owned(),
            Fate::Idle(why) => format!("accepted, and changes nothing: {why}"),
            Fate::Refused(why) => format!("refused: {}", why.split(':').next().unwrap_or(why)),
        };
        if names.len() >= 30 {
            names += &format!("\n{}", " ".repeat(32));
        }
        let _infallible = writeln!(text, "  {names:<30}{}", folded(&help, 32));
    }
    text + "\n" + epilog
}

/// Broken at blanks before column 80, later lines indented.
fn folded(text: &str, indent: usize) -> String {
    let (mut folded, mut column) = (String::new(), indent);
    for word in text.split_whitespace() {
        if column > indent && column + 1 + word.len() > 80 {
            folded += &format!("\n{}", " ".repeat(indent));
            column = indent;
        }
        if column > indent {
            folded.push(' ');
            column += 1;
        }
        folded += word;
        column += word.len();
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: Spec = Spec {
        program: "mysqltest",
        usage: "mysqltest --master=X",
        purpose: "For tests.",
        options: &[&[
            value("master", "X", "the master"),
            value("master-log-file", "FILE", "").idle("GTIDs"),
            value("slaves", "LIST", "the slaves"),
            flag("force", None, "go on"),
            value("interval", "S", "").or('i'),
            value("a-long-name-of-an-option", "VALUE", "its help"),
            flag("pedantic", Some('p'), "").refused("it does"),
        ]],
    };

    fn parsed(line: &str) -> Result<Parsed, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&SPEC, &words)
    }

    #[test]
    fn a_unique_beginning_is_the_option() {
        let given = parsed("--slave=root@b --fo failover --mas x").map(|p| {
            let slaves = p.value("slaves").map(str::to_owned);
            (slaves, p.has("force"), p.arguments)
        });
        assert!(given.is_err(), "--mas is a beginning of two options");
        let given = parsed("--slave=root@b --fo failover --master x").expect("unique");
        assert_eq!(given.value("slaves"), Some("root@b"));
        assert_eq!(given.value("master"), Some("x"));
        assert!(given.has("force"));
        assert_eq!(given.arguments, ["failover"]);
        assert_eq!(
            parsed("--mas x").expect_err("two"),
            "ambiguous option: --mas (--master, --master-log-file?)"
        );
    }

    #[test]
    fn wrong_options_are_named_in_the_words_of_optparse() {
        for (line, message) in [
            ("--foo", "no such option: --foo"),
            ("-x", "no such option: -x"),
            ("--master", "--master option requires an argument"),
            ("-i", "-i option requires an argument"),
            ("--force=1", "--force option does not take a value"),
            ("--=1", "no such option: --"),
        ] {
            assert_eq!(parsed(line).expect_err(line), message);
        }
        let number = parsed("-i x").expect("a value").number("interval", 1);
        assert_eq!(number, Err("option --interval: invalid integer value: 'x'".to_owned()));
    }

    #[test]
    fn short_options_cluster_and_carry_values() {
        let given = parsed("-vvi5 -v -- --force").expect("valid");
        assert_eq!((given.count("verbose"), given.number("interval", 1)), (3, Ok(5)));
        assert_eq!(given.arguments, ["--force"]);
    }

    #[test]
    fn no_option_is_ignored_in_silence() {
        let given = parsed("--master-log-file=x").expect("accepted");
        assert_eq!(given.warnings, ["--master-log-file changes nothing: GTIDs."]);
        assert_eq!(parsed("-p").expect_err("refused"), "--pedantic is refused: it does.");
        assert!(parsed("--ssl=1").is_err() && parsed("--ssl=0").is_ok());
        assert!(parsed("--ssl-ca=x").expect_err("refused").contains("without TLS"));
    }

    #[test]
    fn help_names_every_option_in_80_columns() {
        let text = help(&SPEC, "");
        for option in all(&SPEC) {
            assert!(text.contains(&format!("--{}", option.long)), "{}", option.long);
        }
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(text.contains("an-option=VALUE\n"), "{text}");
    }
}
