//! What is kept of a text that is too long for a prompt: its head, its tail, and what calls Kai in between.

use std::ops::Range;

/// Most calls in the middle of a text that are kept, the last ones: a person who calls more often repeats
/// themselves.
const CALLS_KEPT: usize = 3;
/// Of a text's share, the part that one such call gets: this part of it once per call.
const SHARE_OF_A_CALL: usize = 8;
/// Of what a call gets, the part that stands before it: a few words that lead to it.
const BEFORE_A_CALL: usize = 4;

/// The parts of `text` that are kept within `most`, in order, the whole text if it fits. `cost` is what a
/// character takes of that; `calls` are the places where Kai is called.
pub fn excerpt_ranges(
    text: &str,
    most: usize,
    cost: impl Fn(char) -> usize,
    calls: &[usize],
) -> Vec<Range<usize>> {
    if text.chars().map(&cost).sum::<usize>() <= most {
        return std::iter::once(0..text.len()).collect();
    }
    // How far `budget` reaches over characters, in bytes.
    let reach = |chars: &mut dyn Iterator<Item = char>, budget: usize| {
        let mut left = budget;
        let taken = chars.take_while(|c| {
            let fits = cost(*c) <= left;
            left = left.saturating_sub(cost(*c));
            fits
        });
        taken.map(char::len_utf8).sum::<usize>()
    };
    let per_call = most / SHARE_OF_A_CALL;
    let around = |call: usize| {
        let before = reach(&mut text[..call].chars().rev(), per_call / BEFORE_A_CALL);
        let after = reach(&mut text[call..].chars(), per_call - per_call / BEFORE_A_CALL);
        call - before..call + after
    };
    let ends = |budget: usize| {
        let head = reach(&mut text.chars(), budget - budget / 2);
        let tail = reach(&mut text.chars().rev(), budget / 2);
        (head, text.len() - tail)
    };
    // A call is in the middle if the ends do not reach it when they leave room for it.
    let (head, tail) = ends(most - CALLS_KEPT * per_call);
    let in_the_middle = calls.iter().copied().filter(|call| (head..tail).contains(call));
    let mut middle: Vec<usize> = in_the_middle.rev().take(CALLS_KEPT).collect();
    middle.reverse();
    let (head, tail) = ends(most - middle.len() * per_call);
    let mut kept: Vec<Range<usize>> = std::iter::once(0..head).collect();
    let mut parts: Vec<Range<usize>> = middle.into_iter().map(around).collect();
    parts.push(tail..text.len());
    for part in parts {
        match kept.last_mut() {
            Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
            Some(_) | None => kept.push(part),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(text: &str, most: usize, calls: &[usize]) -> Vec<String> {
        excerpt_ranges(text, most, |_| 1, calls).into_iter().map(|part| text[part].to_owned()).collect()
    }

    #[test]
    fn the_head_the_tail_and_the_calls_between_are_kept() {
        assert_eq!(kept("short", 5, &[]), ["short"]);
        assert_eq!(kept("0123456789", 6, &[]), ["012", "789"]);
        assert_eq!(kept("一二三四五六七八九十", 6, &[]), ["一二三", "八九十"], "scripts are equal");
        let long = format!("{}@Kai what?{}", "x".repeat(100), "y".repeat(100));
        assert_eq!(kept(&long, 64, &[100]), ["x".repeat(28), "xx@Kai w".to_owned(), "y".repeat(28)]);
        // One at the end is there anyway.
        let last = format!("{} @Kai summarize this", "x".repeat(100));
        assert!(kept(&last, 64, &[101]).last().unwrap().ends_with("@Kai summarize this"));
    }

    proptest! {
        #[test]
        fn it_keeps_within_its_bound(
            text in ".{0,200}",
            most in 0_usize..100,
            calls in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut calls: Vec<usize> = match text.is_empty() {
                true => Vec::new(),
                false => calls.iter().map(|call| text.floor_char_boundary(call.index(text.len()))).collect(),
            };
            calls.sort_unstable();
            let parts = excerpt_ranges(&text, most, |c| c.len_utf8(), &calls);
            let bytes: usize = parts.iter().map(|part| text[part.clone()].len()).sum();
            prop_assert!(bytes <= most, "{bytes}");
            prop_assert!(parts.windows(2).all(|pair| pair[0].end < pair[1].start));
            if most >= 64 {
                for call in calls.iter().rev().take(CALLS_KEPT) {
                    prop_assert!(parts.iter().any(|part| part.contains(call)), "{call} in {parts:?}");
                }
            }
        }
    }
}
