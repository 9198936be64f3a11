//! A text that is changed line by line, on a terminal that shows nothing but lines.
//!
//! In: an order as it was typed, lines. Out: lines to show. Must not: check what the text says.
//! Read first: ed(1), whose idea this is.

/// Bytes and lines of a text; a configuration has a page.
pub const BYTES_MAX: usize = 64 * 1024;
const LINES_SHOWN: usize = 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    lines: Vec<String>,
}

/// What was typed; lines count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Change(usize),
    /// A new line behind this one; 0: before the first.
    Insert(usize),
    Remove(usize),
    Show {
        from: usize,
        to: usize,
    },
    /// The whole text anew.
    Paste,
    Write,
    Quit,
    Help,
}

pub const HELP: &str = "  N        changes line N             p [N [M]]  shows lines, 20 without M
  +N       inserts lines behind N     paste      takes a whole new text
  -N       takes line N out           w          checks, and writes if it is right
                                      q          leaves everything as it was
";

impl Draft {
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { lines: text.lines().map(str::to_owned).collect() }
    }

    #[must_use]
    pub fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    #[must_use]
    pub const fn count(&self) -> usize {
        self.lines.len()
    }

    /// Understands an order for this text.
    pub fn parse(&self, typed: &str) -> Result<Order, String> {
        let words: Vec<&str> = typed.split_whitespace().collect();
        let number = |word: &str, least: usize| {
            let count = self.count();
            let number = word.parse().ok().filter(|number| (least..=count).contains(number));
            number.ok_or_else(|| format!("{word:?}: write a line's number, {least} to {count}"))
        };
        match words.as_slice() {
            ["p"] => Ok(Order::Show { from: 1, to: LINES_SHOWN }),
            ["p", from] => {
                let from = number(from, 1)?;
                Ok(Order::Show { from, to: from + LINES_SHOWN - 1 })
            }
            ["p", from, to] => Ok(Order::Show { from: number(from, 1)?, to: number(to, 1)? }),
            ["paste"] => Ok(Order::Paste),
            ["w"] => Ok(Order::Write),
            ["q"] => Ok(Order::Quit),
            ["help" | "?" | "h"] => Ok(Order::Help),
            [word] => match (word.strip_prefix('+'), word.strip_prefix('-')) {
                (Some(rest), _) => Ok(Order::Insert(number(rest, 0)?)),
                (_, Some(rest)) => Ok(Order::Remove(number(rest, 1)?)),
                (None, None) => Ok(Order::Change(number(word, 1)?)),
            },
            [..] => Err(format!("{typed:?}: `help` shows what may be written here")),
        }
    }

    #[must_use]
    pub fn line(&self, number: usize) -> &str {
        number.checked_sub(1).and_then(|place| self.lines.get(place)).map_or("", String::as_str)
    }

    /// Another text for a line.
    pub fn change(&mut self, number: usize, text: &str) {
        if let Some(line) = number.checked_sub(1).and_then(|place| self.lines.get_mut(place)) {
            text.clone_into(line);
        }
    }

    /// A new line behind that one.
    pub fn insert(&mut self, number: usize, text: &str) {
        self.lines.insert(number.min(self.lines.len()), text.to_owned());
    }

    pub fn remove(&mut self, number: usize) {
        if (1..=self.lines.len()).contains(&number) {
            self.lines.remove(number - 1);
        }
    }

    /// Lines with their numbers.
    #[must_use]
    pub fn shown(&self, from: usize, to: usize) -> String {
        let numbered = self.lines.iter().enumerate().map(|(place, line)| (place + 1, line));
        numbered
            .filter(|(number, _)| (from..=to).contains(number))
            .map(|(number, line)| format!("{number:>4}  {line}\n"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
        Draft::new("a = 1\nb = 2\nc = 3\n")
    }

    #[test]
    fn orders_are_understood_or_answered_with_what_to_write() {
        let draft = draft();
        for (typed, order) in [
            ("2", Order::Change(2)),
            ("+0", Order::Insert(0)),
            (" -3 ", Order::Remove(3)),
            ("p", Order::Show { from: 1, to: 20 }),
            ("p 2", Order::Show { from: 2, to: 21 }),
            ("p 1 2", Order::Show { from: 1, to: 2 }),
            ("paste", Order::Paste),
            ("w", Order::Write),
        ] {
            assert_eq!(draft.parse(typed), Ok(order), "{typed}");
        }
        for (typed, words) in [("4", "1 to 3"), ("+4", "0 to 3"), ("-0", "1 to 3"), ("a b", "help")]
        {
            assert!(draft.parse(typed).unwrap_err().contains(words), "{typed}");
        }
    }

    #[test]
    fn lines_change_come_and_go() {
        let mut draft = draft();
        draft.change(2, "b = 20");
        draft.insert(0, "# first");
        draft.insert(4, "d = 4");
        draft.remove(2);
        assert_eq!(draft.text(), "# first\nb = 20\nc = 3\nd = 4\n");
        assert_eq!(draft.shown(2, 3), "   2  b = 20\n   3  c = 3\n");
        assert_eq!((draft.line(4), draft.line(0)), ("d = 4", ""));
        draft.remove(9);
        draft.change(0, "x");
        assert_eq!(draft.count(), 4);
    }
}
