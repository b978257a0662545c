/// A text without escape sequences and other characters that tell a terminal to do something: what a guest or a
/// script says may be shown. Line breaks and tabs stay. Where a sequence moves the cursor to a place, a line ends.
pub fn without_escapes(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let sequence = match character {
            // A line break is one whatever stands before it.
            '\u{1b}' => characters.next_if(|c| *c != '\n'),
            // The same in one character.
            '\u{80}'..='\u{9f}' => char::from_u32(u32::from(character) - 0x40),
            '\n' | '\t' => {
                clean.push(character);
                None
            }
            character if is_obeyed(character) => None,
            character => {
                clean.push(character);
                None
            }
        };
        match sequence {
            // A control sequence has numbers and signs, then a letter or another character from `@` to `~`.
            Some('[') => {
                while characters.next_if(|c| (' '..='?').contains(c)).is_some() {}
                if characters.next_if(|c| ('@'..='~').contains(c)) == Some('H') {
                    clean.push('\n');
                }
            }
            // Commands to the terminal or the operating system end with BEL or ESC \, here with the line at the latest.
            Some(']' | 'P' | 'X' | '^' | '_') => {
                while let Some(c) = characters.next_if(|c| *c != '\n') {
                    let ends = matches!(c, '\u{7}' | '\u{9c}')
                        || (c == '\u{1b}' && characters.next_if_eq(&'\\').is_some());
                    if ends {
                        break;
                    }
                }
            }
            _ => {}
        }
    }
    clean
}

/// Whether a terminal does something at a character instead of showing it. Those that turn the direction of writing make a line look
/// like another one.
pub fn is_obeyed(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One word for a POSIX shell: quoted where it has to be.
pub fn shell_word(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_dropped() {
        assert_eq!(without_escapes("[\u{1b}[0;32m  OK  \u{1b}[0m]\r"), "[  OK  ]");
        assert_eq!(without_escapes("a\u{1b}]0;title\u{7}b\u{1b}]0;t\u{1b}\\c\u{1b}"), "abc");
        assert_eq!(without_escapes("a\u{1b}[01;05Hb\u{1b}[12"), "a\nb");
        assert_eq!(without_escapes("a\u{1b}]0;no end\nb\u{1b}[12\nc\u{1b}\nd"), "a\nb\nc\nd");
    }

    #[test]
    fn nothing_that_a_guest_says_reaches_a_terminal_as_a_command() {
        let hostile = "\u{1b}]52;c;cm0gLXJm\u{7}clip\u{1b}P$q\u{1b}\\\u{9b}2Jclear\u{9d}0;title\u{9c}\u{8}\u{7f}\u{0}\u{7}\u{e}\
                       \u{1b}\u{1b}[31m\u{202e}drow\u{2066}\tand\nline\u{1b}cend";
        let clean = without_escapes(hostile);
        assert_eq!(clean, "clipclear[31mdrow\tand\nlineend");
        assert_eq!(without_escapes(&clean), clean);
    }
}
