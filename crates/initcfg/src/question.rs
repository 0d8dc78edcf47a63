//! How the boot server asks a running machine whether it is there, and the machine answers. Both lines are only good
//! with the [`Token`](crate::Token)'s tag below them.

use crate::token::{NotHex, from_hex, to_hex};
use crate::word::{LineError, field, split};
use core::fmt;
use core::str::FromStr;
use wire::Mac;

/// Length of its number in bytes.
const ID_BYTES: usize = 16;

/// Number of a question: random bytes that are said once, so that who repeats them has heard them just now. In text 32
/// hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuestionId([u8; ID_BYTES]);

/// `bootlace/1 question BOOT NUMBER`, from the boot server to where the signs of life come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Number of the boot.
    pub boot: u64,
    /// What the answer repeats.
    pub id: QuestionId,
}

/// The machine runs, and has heard the question: `bootlace/1 answers BOOT MAC NUMBER`. An answer that was recorded
/// earlier has another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Number of the boot.
    pub boot: u64,
    /// The boot NIC.
    pub mac: Mac,
    /// Of the question.
    pub id: QuestionId,
}

impl QuestionId {
    /// The number of these bytes, which must be random and new.
    pub const fn new(random: [u8; ID_BYTES]) -> Self {
        Self(random)
    }
}

impl fmt::Display for QuestionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl FromStr for QuestionId {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        from_hex(text).map(Self)
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bootlace/1 question {} {}", self.boot, self.id)
    }
}

impl Question {
    /// Reads a line.
    ///
    /// # Errors
    /// The line is no question, or one of its fields is missing or wrong.
    pub fn parse(line: &[u8]) -> Result<Self, LineError> {
        let ("question", fields) = split(line)? else { return Err(LineError::NotOurs) };
        let mut fields = fields.splitn(2, ' ');
        Ok(Self { boot: field(&mut fields, "boot number")?, id: field(&mut fields, "number")? })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bootlace/1 answers {} {} {}", self.boot, self.mac, self.id)
    }
}

impl Answer {
    /// Reads what follows the word `answers`.
    pub(crate) fn from_fields(fields: &str) -> Result<Self, LineError> {
        let mut fields = fields.splitn(3, ' ');
        Ok(Self {
            boot: field(&mut fields, "boot number")?,
            mac: field(&mut fields, "MAC address")?,
            id: field(&mut fields, "number")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Word;
    use alloc::string::ToString;

    #[test]
    fn question_and_answer_arrive_as_they_were_sent() {
        let id = QuestionId::new([0xab; ID_BYTES]);
        let question = Question { boot: 42, id };
        let text = question.to_string();
        assert_eq!(text, "bootlace/1 question 42 abababababababababababababababab");
        assert_eq!(Question::parse(text.as_bytes()), Ok(question));
        for end in 0..text.len() {
            assert!(Question::parse(&text.as_bytes()[..end]).is_err(), "{end}");
        }
        assert_eq!(Word::parse(text.as_bytes()), Err(LineError::NotOurs));

        let answer = Answer { boot: 42, mac: Mac([0x52, 0x54, 0, 0, 0, 1]), id };
        let text = answer.to_string();
        assert_eq!(Word::parse(text.as_bytes()), Ok(Word::Answer(answer)));
        for end in 0..text.len() {
            assert!(Word::parse(&text.as_bytes()[..end]).is_err(), "{end}");
        }
        assert!(Word::parse(alloc::format!("{text} x").as_bytes()).is_err());
    }
}
