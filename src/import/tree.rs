//! Tree: statements with blocks, as keepalived (by lines) and nginx (by semicolons) write them.
//!
//! In: a text. Out: statements, each with its words and its line, and what is wrong with the text.
//! Must not: recurse on the depth of the input. Read first: keepalived.conf(5); nginx,
//! ngx_conf_read_token.

use std::collections::BTreeMap;

use super::draft::{Draft, Origin};
use super::{folder, matching};

/// Deeper blocks than anybody writes.
const DEPTH_MAX: usize = 32;
/// Files that include files.
const INCLUDES_MAX: usize = 16;
const STATEMENTS_MAX: usize = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Lines,
    Semicolons,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) words: Vec<String>,
    pub(super) origin: Origin,
    pub(super) block: Option<Vec<Self>>,
}

impl Statement {
    pub(super) fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The words after the name.
    pub(super) fn values(&self) -> Vec<&str> {
        self.words.iter().skip(1).map(String::as_str).collect()
    }

    pub(super) fn value(&self) -> &str {
        self.words.get(1).map_or("", String::as_str)
    }

    pub(super) fn inner(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// As it stood there, on one line.
    pub(super) fn shown(&self) -> String {
        const SECRETS: [&str; 5] = ["password", "passwd", "secret", "token", "auth_pass"];
        let is_secret = |word: &&String| {
            let word = word.to_ascii_lowercase();
            SECRETS.iter().any(|it| word.contains(it))
        };
        match self.words.iter().position(|word| is_secret(&word)) {
            // What follows such a word is not shown.
            Some(place) if place < 3 => {
                let words: Vec<&str> =
                    self.words.iter().take(place + 1).map(String::as_str).collect();
                words.join(" ").chars().take(60).collect()
            }
            Some(_) | None => self.words.join(" ").chars().take(60).collect(),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
    End,
}

/// The statements of a file and of what it includes.
pub(super) fn load(
    draft: &mut Draft,
    at: &Origin,
    style: Style,
    files: &BTreeMap<String, String>,
) -> Vec<Statement> {
    let text = files.get(&at.path).map(String::as_str).unwrap_or_default();
    let root = folder(&at.path).to_owned();
    let mut loader = Loader { draft, style, files, root, count: 0 };
    let statements = loader.parse(text, at);
    loader.expand(statements, 0)
}

struct Loader<'a> {
    draft: &'a mut Draft,
    style: Style,
    files: &'a BTreeMap<String, String>,
    /// What relative paths begin at.
    root: String,
    count: usize,
}

impl Loader<'_> {
    fn parse(&mut self, text: &str, at: &Origin) -> Vec<Statement> {
        let tokens = tokens(self.draft, text, at, self.style);
        build(self.draft, tokens, at, self.style)
    }

    /// Puts what is included in the place of the word. `depth`: of files and blocks together.
    fn expand(&mut self, statements: Vec<Statement>, depth: usize) -> Vec<Statement> {
        let mut all = Vec::new();
        for mut statement in statements {
            self.count += 1;
            if depth > DEPTH_MAX + INCLUDES_MAX || self.count > STATEMENTS_MAX {
                self.draft.error(&statement.origin, "includes that end: a file includes itself");
                break;
            }
            if statement.name() != "include" || statement.block.is_some() {
                statement.block = statement.block.map(|block| self.expand(block, depth + 1));
                all.push(statement);
                continue;
            }
            let pattern = statement.value();
            let is_absolute = pattern.starts_with('/');
            let pattern =
                if is_absolute { pattern.into() } else { format!("{}/{pattern}", self.root) };
            let found: Vec<String> = self.found(&pattern);
            if found.is_empty() && !is_usual(&pattern) {
                self.draft.left(
                    &statement.origin,
                    &statement.shown(),
                    "the file is not among those given: what it says is not taken over",
                );
            }
            for path in found.iter().filter(|path| !is_usual(path)) {
                let text = self.files.get(path).map(String::as_str).unwrap_or_default();
                let at = Origin { host: statement.origin.host, path: path.clone(), line: 1 };
                let inner = self.parse(text, &at);
                // A file counts as two blocks: both have an end.
                let inner = self.expand(inner, depth + 2);
                all.extend(inner);
            }
        }
        all
    }

    /// The files of a pattern. Of a copy that has lost its upper folders: by what is left of the
    /// path, with a folder where there is a star.
    fn found(&self, pattern: &str) -> Vec<String> {
        let mut rest = pattern;
        let mut wanted = pattern.to_owned();
        loop {
            let found = matching(self.files, &wanted);
            if !found.is_empty() {
                return found.into_iter().map(Into::into).collect();
            }
            let Some((_, shorter)) = rest.split_once('/') else { return Vec::new() };
            if shorter.contains('*') && !shorter.contains('/') {
                return Vec::new();
            }
            rest = shorter;
            wanted = format!("{}/{rest}", self.root);
        }
    }
}

/// Folders of modules, empty on most hosts, and files that come with nginx and say what
/// tandem does by itself.
fn is_usual(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    matches!(
        name,
        "mime.types"
            | "fastcgi_params"
            | "fastcgi.conf"
            | "fastcgi-php.conf"
            | "fastcgi_params.conf"
    ) || path.contains("/modules-enabled/")
}

fn tokens(draft: &mut Draft, text: &str, at: &Origin, style: Style) -> Vec<(Token, usize)> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut chars = text.chars().peekable();
    while let Some(letter) = chars.next() {
        match letter {
            '\n' => {
                if style == Style::Lines {
                    tokens.push((Token::End, line));
                }
                line += 1;
            }
            '#' | '!' if letter == '#' || style == Style::Lines => {
                while chars.peek().is_some_and(|next| *next != '\n') {
                    chars.next();
                }
            }
            ';' if style == Style::Semicolons => tokens.push((Token::End, line)),
            '{' => tokens.push((Token::Open, line)),
            '}' => tokens.push((Token::Close, line)),
            '"' | '\'' => {
                let start = line;
                let (mut word, mut is_closed) = (String::new(), false);
                while let Some(next) = chars.next() {
                    match next {
                        _ if next == letter => {
                            is_closed = true;
                            break;
                        }
                        '\\' => word.extend(unescaped(chars.next())),
                        '\n' if style == Style::Lines => {
                            line += 1;
                            break;
                        }
                        _ => {
                            line += usize::from(next == '\n');
                            word.push(next);
                        }
                    }
                }
                if !is_closed {
                    draft.error(&at.at(start), &format!("{letter} that ends what begins here"));
                }
                tokens.push((Token::Word(word), start));
            }
            _ if letter.is_whitespace() => {}
            _ => {
                let mut word = String::from(letter);
                let is_end = |next: &char, word: &str| {
                    let is_variable = *next == '{' && word.ends_with('$');
                    let is_inside = *next == '}' && word.contains("${");
                    let is_mark = matches!(next, '{' | '}') && !is_variable && !is_inside;
                    let is_stop = *next == ';' && style == Style::Semicolons;
                    next.is_whitespace() || is_mark || is_stop
                };
                while let Some(next) = chars.next_if(|next| !is_end(next, &word)) {
                    word.push(next);
                }
                tokens.push((Token::Word(word), line));
            }
        }
    }
    tokens.push((Token::End, line));
    tokens
}

/// Within quotes: a regex keeps its backslashes, a quote loses its own.
fn unescaped(next: Option<char>) -> Vec<char> {
    match next {
        Some(quote @ ('"' | '\'' | '\\')) => vec![quote],
        Some(other) => vec!['\\', other],
        None => vec!['\\'],
    }
}

fn build(
    draft: &mut Draft,
    tokens: Vec<(Token, usize)>,
    at: &Origin,
    style: Style,
) -> Vec<Statement> {
    // Those that are open, with what stood before them on their level.
    let mut open: Vec<(Statement, Vec<Statement>)> = Vec::new();
    let (mut level, mut words, mut start) = (Vec::new(), Vec::new(), 1);
    for (token, line) in tokens {
        let is_bare_end = token == Token::Close || token == Token::End;
        if is_bare_end && !words.is_empty() {
            if style == Style::Semicolons && token == Token::Close {
                draft.error(&at.at(line), "a semicolon before }");
            }
            let words = std::mem::take(&mut words);
            level.push(Statement { words, origin: at.at(start), block: None });
        }
        match token {
            Token::Word(word) => {
                if words.is_empty() {
                    start = line;
                }
                words.push(word);
            }
            Token::Open => {
                // keepalived takes the brace on the next line too.
                let opened = match std::mem::take(&mut words) {
                    words if !words.is_empty() => {
                        Some(Statement { words, origin: at.at(start), block: None })
                    }
                    _ => level.pop_if(|last: &mut Statement| last.block.is_none()),
                };
                let Some(statement) = opened.filter(|_| open.len() < DEPTH_MAX) else {
                    draft.error(&at.at(line), "a name before {, and no more than 32 levels");
                    break;
                };
                open.push((statement, std::mem::take(&mut level)));
            }
            Token::Close => match open.pop() {
                Some((mut statement, before)) => {
                    statement.block = Some(std::mem::replace(&mut level, before));
                    level.push(statement);
                }
                None => draft.error(&at.at(line), "no } here: no block is open"),
            },
            Token::End => {}
        }
    }
    while let Some((mut statement, before)) = open.pop() {
        let what = format!("}} that closes {:?}", statement.name());
        draft.error(&statement.origin, &what);
        statement.block = Some(std::mem::replace(&mut level, before));
        level.push(statement);
    }
    level
}
