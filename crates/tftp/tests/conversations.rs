//! Transfers as conversations: lines with `>` are what happens to the server, the others what it does.

use std::fmt::Write;
use tftp::{Asked, Mode, Next, Terms, Transfer};
use wire::Moment;

/// Runs `script` on a transfer of `size` bytes. Its `>` lines are fed in, all lines are compared.
#[track_caller]
fn check(size: u64, options: Asked, script: &str) {
    let terms = Terms::settle(&options, Mode::Octet, size, 1468);
    let mut transfer = Transfer::start(&terms, size, Moment::default());
    let mut now = Moment::default();
    let mut actual = String::new();
    for line in script.lines().map(str::trim) {
        let Some(event) = line.strip_prefix("> ") else { continue };
        let words: Vec<&str> = event.split(' ').collect();
        writeln!(actual, "{line}").expect("strings take everything");
        match words[..] {
            ["at", ms] => now = Moment::from_millis(ms.parse().expect("a number")),
            ["ack", block] => transfer.on_ack(block.parse().expect("a number"), now),
            ["error"] => transfer.on_error(),
            ["again"] => {
                if !transfer.on_request_again(now) {
                    actual.push_str("replace\n");
                }
            }
            _ => panic!("unknown event {event}"),
        }
        loop {
            match transfer.next(now) {
                Next::OptionAck => actual.push_str("oack\n"),
                Next::Data { block, offset, len } => {
                    assert_eq!(offset % u64::from(terms.block_size), 0);
                    writeln!(actual, "data {block} ({len})").expect("strings take everything");
                }
                Next::WaitUntil(moment) => {
                    assert!(moment > now, "waiting for a moment that has passed would spin");
                    break;
                }
                Next::Done(outcome) => {
                    writeln!(actual, "{outcome:?}").expect("strings take everything");
                    break;
                }
            }
        }
    }
    let expected: String = script.lines().map(str::trim).filter(|line| !line.is_empty()).fold(
        String::new(),
        |mut text, line| {
            text.push_str(line);
            text.push('\n');
            text
        },
    );
    assert_eq!(actual, expected, "\nactual:\n{actual}");
}

const PLAIN: Asked = Asked { block_size: None, timeout_s: None, size: false, window: None };
const SIZE: Asked = Asked { size: true, ..PLAIN };
const WINDOW: Asked = Asked { window: Some(4), ..PLAIN };

#[test]
fn duplicate_acks_are_ignored_and_silence_repeats_the_block() {
    check(
        700,
        PLAIN,
        "
        > at 0
        data 1 (512)
        > ack 1
        data 2 (188)
        > ack 1
        > ack 0
        > at 249
        > at 250
        data 2 (188)
        > ack 2
        Confirmed",
    );
}

#[test]
fn acks_from_the_future_are_ignored() {
    check(
        5000,
        PLAIN,
        "
        > at 0
        data 1 (512)
        > ack 2
        > ack 10
        > ack 65535
        > ack 1
        data 2 (512)",
    );
}

#[test]
fn a_file_of_full_blocks_ends_with_an_empty_one() {
    check(
        512,
        PLAIN,
        "
        > at 0
        data 1 (512)
        > ack 1
        data 2 (0)
        > ack 2
        Confirmed",
    );
    check(
        0,
        PLAIN,
        "
        > at 0
        data 1 (0)
        > ack 1
        Confirmed",
    );
}

#[test]
fn who_never_says_a_word_is_sent_little() {
    check(
        700,
        PLAIN,
        "
        > at 0
        data 1 (512)
        > at 1000
        data 1 (512)
        > at 3000
        data 1 (512)
        > at 7000
        data 1 (512)
        > at 11999
        > at 12000
        GaveUp",
    );
    // Not even if it asks again and again; anybody can do so in its name.
    check(
        700,
        WINDOW,
        "
        > at 0
        oack
        > at 20
        > again
        oack
        > at 40
        > again
        oack
        > at 60
        > again
        oack
        > at 80
        > again
        oack
        > at 100
        > again
        oack
        > at 120
        > again
        > at 1099
        > again
        > at 1100
        GaveUp",
    );
}

#[test]
fn a_lost_oack_is_repeated_with_growing_pauses() {
    check(
        700,
        SIZE,
        "
        > at 0
        oack
        > at 999
        > at 1000
        oack
        > at 2999
        > at 3000
        oack
        > ack 1
        > ack 0
        data 1 (512)",
    );
}

#[test]
fn asking_for_the_size_only_ends_at_once() {
    check(
        700,
        SIZE,
        "
        > at 0
        oack
        > error
        Aborted",
    );
}

#[test]
fn repeated_requests_are_one_transfer() {
    check(
        700,
        SIZE,
        "
        > at 0
        oack
        > again
        > at 1
        > again
        > at 300
        > again
        oack
        > ack 0
        data 1 (512)
        > again
        replace",
    );
    check(
        700,
        PLAIN,
        "
        > at 0
        data 1 (512)
        > at 300
        > again
        data 1 (512)
        > ack 1
        data 2 (188)
        > again
        replace",
    );
}

#[test]
fn a_window_is_sent_at_once_and_a_gap_resumes_behind_the_last_good_block() {
    check(
        3000,
        WINDOW,
        "
        > at 0
        oack
        > ack 0
        data 1 (512)
        data 2 (512)
        data 3 (512)
        data 4 (512)
        > ack 2
        data 3 (512)
        data 4 (512)
        data 5 (512)
        > ack 2
        > ack 2
        > at 1
        data 6 (440)
        > ack 6
        Confirmed",
    );
}

#[test]
fn a_lost_first_block_of_a_window_is_resent_once_per_flight() {
    check(
        9000,
        WINDOW,
        "
        > at 0
        oack
        > ack 0
        data 1 (512)
        data 2 (512)
        data 3 (512)
        data 4 (512)
        > ack 4
        data 5 (512)
        data 6 (512)
        data 7 (512)
        data 8 (512)
        > ack 4
        data 5 (512)
        > ack 4
        data 6 (512)
        data 7 (512)
        > ack 4
        > at 1
        data 8 (512)
        > ack 8
        data 9 (512)
        data 10 (512)
        data 11 (512)
        data 12 (512)",
    );
}

#[test]
fn a_late_ack_after_a_repeat_still_counts() {
    check(
        9000,
        WINDOW,
        "
        > at 0
        oack
        > ack 0
        data 1 (512)
        data 2 (512)
        data 3 (512)
        data 4 (512)
        > at 250
        data 1 (512)
        > ack 4
        data 5 (512)
        data 6 (512)
        > at 251
        data 7 (512)
        data 8 (512)
        > ack 4
        > ack 8
        data 9 (512)
        data 10 (512)
        data 11 (512)
        data 12 (512)",
    );
}

#[test]
fn answers_to_copies_ask_for_nothing() {
    // Block 1 was late: the client acknowledges both copies.
    check(
        5000,
        PLAIN,
        "
        > at 0
        data 1 (512)
        > at 1000
        data 1 (512)
        > ack 1
        data 2 (512)
        > ack 1
        > at 1200
        > ack 2
        data 3 (512)
        > ack 2
        > ack 2",
    );
    // So was the option's answer.
    check(
        5000,
        WINDOW,
        "
        > at 0
        oack
        > at 1000
        oack
        > ack 0
        data 1 (512)
        data 2 (512)
        data 3 (512)
        data 4 (512)
        > ack 0
        > ack 4
        data 5 (512)
        data 6 (512)
        data 7 (512)
        data 8 (512)",
    );
}

#[test]
fn a_client_that_becomes_impatient_gets_the_block_again() {
    check(
        5000,
        PLAIN,
        "
        > at 0
        data 1 (512)
        > ack 1
        data 2 (512)
        > ack 1
        > at 100
        > ack 1
        data 2 (512)
        > ack 1
        > ack 2
        data 3 (512)",
    );
}

#[test]
fn where_a_loss_was_proven_the_next_guess_is_quick() {
    check(
        9000,
        WINDOW,
        "
        > at 0
        oack
        > ack 0
        data 1 (512)
        data 2 (512)
        data 3 (512)
        data 4 (512)
        > ack 1
        data 2 (512)
        data 3 (512)
        data 4 (512)
        > at 1
        data 5 (512)
        > ack 5
        data 6 (512)
        data 7 (512)
        data 8 (512)
        data 9 (512)
        > at 30
        > at 31
        data 6 (512)
        > at 40
        > at 41
        data 7 (512)
        > at 42
        data 8 (512)
        data 9 (512)
        > ack 9
        > at 43
        data 10 (512)
        data 11 (512)
        data 12 (512)
        > at 44
        data 13 (512)",
    );
}

#[test]
fn a_window_without_its_end_is_continued_where_the_client_says() {
    check(
        9000,
        WINDOW,
        "
        > at 0
        oack
        > ack 0
        data 1 (512)
        data 2 (512)
        data 3 (512)
        data 4 (512)
        > at 250
        data 1 (512)
        > ack 3
        data 4 (512)
        data 5 (512)
        > at 251
        data 6 (512)
        data 7 (512)",
    );
}

#[test]
fn a_lost_last_ack_counts_as_success_and_a_silent_client_is_given_up() {
    check(
        100,
        SIZE,
        "
        > at 0
        oack
        > ack 0
        data 1 (100)
        > at 250
        data 1 (100)
        > at 750
        data 1 (100)
        > at 1750
        data 1 (100)
        > at 3750
        data 1 (100)
        > at 7750
        data 1 (100)
        > at 12749
        > at 12750
        Unconfirmed",
    );
    check(
        100,
        SIZE,
        "
        > at 0
        oack
        > at 29999
        oack
        > at 40000
        GaveUp",
    );
}

#[test]
fn the_client_may_ask_for_faster_repeats() {
    check(
        700,
        Asked { timeout_s: Some(1), ..PLAIN },
        "
        > at 0
        oack
        > at 1000
        oack
        > at 2000
        oack
        > at 3000
        oack",
    );
}

#[test]
fn block_numbers_wrap_to_zero() {
    let size = 8 * 70_000 + 3;
    let options = Asked { block_size: Some(8), window: Some(64), ..PLAIN };
    let terms = Terms::settle(&options, Mode::Octet, size, 1468);
    let now = Moment::default();
    let mut transfer = Transfer::start(&terms, size, now);
    assert_eq!(transfer.next(now), Next::OptionAck);
    transfer.on_ack(0, now);
    let mut received = 0;
    let mut n_blocks = 0u64;
    loop {
        match transfer.next(now) {
            Next::Data { block, offset, len } => {
                n_blocks += 1;
                assert_eq!((u64::from(block), offset), (n_blocks % 65536, (n_blocks - 1) * 8));
                received += u64::from(len);
            }
            Next::WaitUntil(_) => transfer.on_ack(n_blocks as u16, now),
            Next::Done(outcome) => {
                assert_eq!(outcome, tftp::Outcome::Confirmed);
                break;
            }
            Next::OptionAck => panic!("the options were settled"),
        }
    }
    assert_eq!((received, n_blocks, transfer.sent().again), (size, 70_001, 0));
}

#[test]
fn who_agrees_and_gets_no_first_block_is_known_by_the_third_time() {
    let start = |asked: Asked| {
        let terms = Terms::settle(&asked, Mode::Octet, 10_000, 1468);
        (Transfer::start(&terms, 10_000, Moment::default()), terms.option_ack.is_some())
    };
    // Sends what is to be sent, and passes the time until something else happens.
    let sent = |transfer: &mut Transfer, until_ms: u64| {
        let mut now = Moment::default();
        let mut blocks = Vec::new();
        while now <= Moment::from_millis(until_ms) {
            match transfer.next(now) {
                Next::Data { block, .. } => blocks.push(block),
                Next::OptionAck => {}
                Next::WaitUntil(moment) => now = moment,
                Next::Done(outcome) => panic!("{outcome:?}"),
            }
        }
        blocks
    };
    for window in [None, Some(4)] {
        let (mut transfer, agrees) = start(Asked { block_size: Some(1468), window, ..PLAIN });
        assert!(agrees && !transfer.lacks_first());
        assert_eq!(transfer.next(Moment::default()), Next::OptionAck);
        assert!(!transfer.lacks_first(), "it may not be there");
        transfer.on_ack(0, Moment::default());
        transfer.on_ack(0, Moment::from_millis(200));
        let n_first = |blocks: &[u16]| blocks.iter().filter(|block| **block == 1).count();
        let blocks = sent(&mut transfer, 400);
        assert_eq!((n_first(&blocks), transfer.lacks_first()), (2, false), "{blocks:?}");
        let blocks = sent(&mut transfer, 1000);
        assert_eq!((n_first(&blocks), transfer.lacks_first()), (1, false), "{blocks:?}");
        // It may have gone; and a copy of its first word says nothing.
        transfer.on_ack(0, Moment::from_millis(1000));
        assert!(transfer.lacks_first(), "it waits for it");
        transfer.on_ack(1, Moment::from_millis(1000));
        assert!(!transfer.lacks_first(), "it came after all");
    }
    // Without options there is no sign that it is there.
    let (mut transfer, agrees) = start(PLAIN);
    assert!(!agrees && sent(&mut transfer, 3000).len() > 2 && !transfer.lacks_first());
}
