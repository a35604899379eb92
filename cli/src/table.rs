//! Aligned columns, as kubectl prints them: three spaces between, header once, widths that only grow while rows keep coming.

use crate::text::shown;

/// How a cell stands out on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    Plain,
    Green,
    Red,
    Dim,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell(pub(crate) String, pub(crate) Paint);

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self(text.into(), Paint::Plain)
    }
}

/// One table, possibly printed piece by piece.
#[derive(Debug)]
pub(crate) struct Table {
    headers: Vec<&'static str>,
    widths: Vec<usize>,
    headed: bool,
    color: bool,
}

impl Table {
    pub(crate) fn new(headers: &[&'static str], color: bool) -> Self {
        Self { headers: headers.to_vec(), widths: headers.iter().map(|header| header.len()).collect(), headed: false, color }
    }

    /// For rows that come one by one: room from the start for what columns of these names usually hold.
    pub(crate) fn streaming(mut self) -> Self {
        for (width, header) in self.widths.iter_mut().zip(&self.headers) {
            *width = (*width).max(match *header {
                "TOKEN" | "REVISION" => 16,
                "NAME" | "HOLDER" | "PREVIOUS-HOLDER" => 15,
                "TIME" | "SINCE" => 20,
                "EVENT" => 8,
                "STATE" => 7,
                _ => 0,
            });
        }
        self
    }

    /// The rows, under the header the first time.
    pub(crate) fn print(&mut self, rows: &[Vec<Cell>]) -> String {
        // A row is a line whatever its cells say.
        let rows: Vec<Vec<Cell>> = rows.iter().map(|row| row.iter().map(|Cell(text, paint)| Cell(shown(text).into_owned(), *paint)).collect()).collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.0.chars().count());
            }
        }
        let mut out = String::new();
        if !self.headed {
            self.headed = true;
            let headers: Vec<Cell> = self.headers.iter().map(|&header| header.into()).collect();
            self.line(&headers, &mut out);
        }
        for row in &rows {
            self.line(row, &mut out);
        }
        out
    }

    fn line(&self, row: &[Cell], out: &mut String) {
        for (i, (Cell(text, paint), width)) in row.iter().zip(&self.widths).enumerate() {
            let code = match paint {
                Paint::Plain => "",
                Paint::Green => "32",
                Paint::Red => "31",
                Paint::Dim => "2",
            };
            if self.color && !code.is_empty() {
                out.extend(["\x1b[", code, "m", text, "\x1b[0m"]);
            } else {
                out.push_str(text);
            }
            if i + 1 < row.len() {
                out.extend(std::iter::repeat_n(' ', width - text.chars().count() + 3));
            }
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_later_rows_have_no_header() {
        let mut table = Table::new(&["NAME", "STATE", "AGE"], false);
        let first = table.print(&[vec!["a-long-name".into(), Cell("HELD".into(), Paint::Green), "3h".into()], vec!["b".into(), "FREE".into(), "5d".into()]]);
        assert_eq!(first, "NAME          STATE   AGE\na-long-name   HELD    3h\nb             FREE    5d\n");
        assert_eq!(table.print(&[vec!["c".into(), "EXPIRED".into(), "1s".into()]]), "c             EXPIRED   1s\n");
    }

    #[test]
    fn colour_does_not_move_columns() {
        let mut table = Table::new(&["STATE", "AGE"], true);
        assert_eq!(table.print(&[vec![Cell("HELD".into(), Paint::Green), "1s".into()]]), "STATE   AGE\n\x1b[32mHELD\x1b[0m    1s\n");
    }
}
