use std::fmt::Write;

/// Columns of text that is printed to no terminal.
pub const PLAIN_WIDTH: usize = 100;

/// Narrower than this nothing is wrapped any further.
const MIN_WIDTH: usize = 40;

/// Columns of the terminal that is stdout; [`PLAIN_WIDTH`] when it is none, or
/// does not say.
#[must_use]
pub fn terminal_width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0)
        .unwrap_or(PLAIN_WIDTH)
}

/// Adds `text` in lines of at most `width` characters, the first behind
/// `first`, the others behind `rest` spaces. A longer word gets a line of its
/// own and is not cut: a path has to stay one piece.
pub(super) fn wrap(out: &mut String, first: &str, rest: usize, text: &str, width: usize) {
    let width = width.max(MIN_WIDTH);
    out.push_str(first);
    let mut column = first.chars().count();
    let mut empty = true;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if !empty && column + 1 + length > width {
            // Writing to a String cannot fail.
            let _ = write!(out, "\n{:rest$}", "");
            column = rest;
        } else if !empty {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
        empty = false;
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_before_the_width_and_words_stay_whole() {
        let mut out = String::new();
        let path = "/".repeat(60);
        wrap(&mut out, "  To do: ", 4, &format!("read {path} a b"), 40);
        wrap(
            &mut out,
            "",
            2,
            "one two three four five six seven eight nine ten",
            40,
        );
        wrap(&mut out, "  ", 4, "", 40);
        assert_eq!(
            out,
            format!(
                "  To do: read\n    {path}\n    a b\n\
                 one two three four five six seven eight\n  nine ten\n  \n"
            )
        );
    }
}
