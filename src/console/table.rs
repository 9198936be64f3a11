//! Tables as scripts and people read them: grid, csv, tab, vertical.
//!
//! In: column names and rows of text. Out: text in one of four formats. Must not: cut a cell.
//! Read first: facts/repl.md 1.4 and 1.7 (mysql-utilities' output, which scripts parse).

use std::fmt::Write as _;

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Grid,
    Csv,
    Tab,
    Vertical,
}

impl Format {
    /// Any beginning of a name, in either case, as mysql-utilities take it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let is_beginning = |(name, _): &(&str, Self)| !text.is_empty() && name.starts_with(&text);
        FORMATS.into_iter().find(is_beginning).map(|(_, format)| format)
    }
}

/// The whole table, line ends included; empty for a vertical table without rows.
#[must_use]
pub fn render(format: Format, columns: &[&str], rows: &[Vec<String>]) -> String {
    match format {
        Format::Grid => grid(columns, rows),
        Format::Csv => separated(columns, rows, ','),
        Format::Tab => separated(columns, rows, '\t'),
        Format::Vertical => vertical(columns, rows),
    }
}

/// Each column one wider than its longest cell.
fn grid(columns: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |row: &Vec<String>, index: usize| row.get(index).map_or(0, |c| c.chars().count());
    let width = |(index, name): (usize, &&str)| {
        let longest = rows.iter().map(|row| cell(row, index)).max().unwrap_or(0);
        longest.max(name.chars().count()) + 1
    };
    let widths: Vec<usize> = columns.iter().enumerate().map(width).collect();
    let mut rule = "+".to_owned();
    for width in &widths {
        rule += &"-".repeat(width + 2);
        rule.push('+');
    }
    rule.push('\n');
    let line = |cells: &[&str]| {
        let mut line = "|".to_owned();
        for (cell, width) in cells.iter().zip(&widths) {
            let _infallible = write!(line, " {cell:<width$} |");
        }
        line.push('\n');
        line
    };
    let mut text = rule.clone() + &line(columns) + &rule;
    for row in rows {
        text += &line(&cells(row));
    }
    text + &rule
}

fn separated(columns: &[&str], rows: &[Vec<String>], separator: char) -> String {
    let line = |cells: &[&str]| {
        let cells: Vec<String> = cells.iter().map(|cell| guarded(cell, separator)).collect();
        cells.join(&separator.to_string()) + "\n"
    };
    let mut text = line(columns);
    for row in rows {
        text += &line(&cells(row));
    }
    text
}

fn cells(row: &[String]) -> Vec<&str> {
    row.iter().map(String::as_str).collect()
}

/// In quotes only where a reader would otherwise split the cell (RFC 4180, 2).
fn guarded(cell: &str, separator: char) -> String {
    if cell.contains([separator, '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

fn vertical(columns: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    let width = columns.iter().map(|name| name.chars().count()).max().unwrap_or(0) + 1;
    let stars = "*".repeat(25);
    for (index, row) in rows.iter().enumerate() {
        let _infallible = writeln!(text, "{stars}{:>8}. row {stars}", index + 1);
        for (name, cell) in columns.iter().zip(row) {
            let _infallible = writeln!(text, "{name:>width$}: {cell}");
        }
    }
    match rows.len() {
        0 => {}
        1 => text += "1 row.\n",
        count => {
            let _infallible = writeln!(text, "{count} rows.");
        }
    }
    text
}

const FORMATS: [(&str, Format); 4] = [
    ("grid", Format::Grid),
    ("csv", Format::Csv),
    ("tab", Format::Tab),
    ("vertical", Format::Vertical),
];

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [&str; 6] = ["host", "port", "role", "state", "gtid_mode", "health"];

    fn pair() -> Vec<Vec<String>> {
        [
            ["server1", "3306", "MASTER", "UP", "ON", "OK"],
            ["server2", "3306", "SLAVE", "UP", "ON", "OK"],
        ]
        .map(|row| row.map(str::to_owned).to_vec())
        .to_vec()
    }

    #[test]
    fn a_grid_is_as_mysqlrpladmin_printed_it() {
        assert_eq!(
            render(Format::Grid, &COLUMNS, &pair()),
            "\
+----------+-------+---------+--------+------------+---------+
| host     | port  | role    | state  | gtid_mode  | health  |
+----------+-------+---------+--------+------------+---------+
| server1  | 3306  | MASTER  | UP     | ON         | OK      |
| server2  | 3306  | SLAVE   | UP     | ON         | OK      |
+----------+-------+---------+--------+------------+---------+
"
        );
    }

    #[test]
    fn csv_and_tab_are_as_mysqlrpladmin_printed_them() {
        assert_eq!(
            render(Format::Csv, &COLUMNS, &pair()),
            "host,port,role,state,gtid_mode,health\n\
             server1,3306,MASTER,UP,ON,OK\nserver2,3306,SLAVE,UP,ON,OK\n"
        );
        assert_eq!(
            render(Format::Tab, &COLUMNS, &pair()),
            "host\tport\trole\tstate\tgtid_mode\thealth\n\
             server1\t3306\tMASTER\tUP\tON\tOK\nserver2\t3306\tSLAVE\tUP\tON\tOK\n"
        );
        let row = vec![vec!["a,b".to_owned(), "say \"x\"".to_owned()]];
        assert_eq!(render(Format::Csv, &["m", "n"], &row), "m,n\n\"a,b\",\"say \"\"x\"\"\"\n");
        assert_eq!(render(Format::Tab, &["m", "n"], &row), "m\tn\na,b\t\"say \"\"x\"\"\"\n");
    }

    #[test]
    fn a_vertical_table_is_as_mysqlrpladmin_printed_it() {
        assert_eq!(
            render(Format::Vertical, &COLUMNS, &pair()),
            "\
*************************       1. row *************************
      host: server1
      port: 3306
      role: MASTER
     state: UP
 gtid_mode: ON
    health: OK
*************************       2. row *************************
      host: server2
      port: 3306
      role: SLAVE
     state: UP
 gtid_mode: ON
    health: OK
2 rows.
"
        );
        assert_eq!(render(Format::Vertical, &COLUMNS, &[]), "");
    }

    #[test]
    fn a_format_is_any_beginning_of_its_name() {
        assert_eq!(Format::parse("V"), Some(Format::Vertical));
        assert_eq!(Format::parse("Gri"), Some(Format::Grid));
        assert_eq!(Format::parse("tabs"), None);
        assert_eq!(Format::parse(""), None);
    }
}
