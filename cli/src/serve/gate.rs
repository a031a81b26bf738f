//! Who may ask what.
//!
//! 1. Beyond this machine nothing but health is told without the token, and without a token nothing is served there at all.
//! 2. An administrator's call takes the token as `Authorization: Bearer`, which no page of another site can make a browser send.
//! 3. On this machine only its own names are answered to: a page elsewhere that has its name point here learns nothing.

use super::answer::Answer;
use super::routes::Who;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap};
use std::fmt;
use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};

/// Shorter ones are guessed.
const LETTERS_MIN: usize = 16;

/// The administrator's token.
#[derive(Clone)]
pub struct Token(Vec<u8>);

impl Token {
    /// One that is long enough to be none that is guessed, of letters that a header can hold.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("it may hold printable ASCII without spaces only");
        }
        if text.len() < LETTERS_MIN {
            return Err("it has fewer than 16 letters");
        }
        Ok(Self(text.as_bytes().to_vec()))
    }

    /// Compares in a time that tells nothing of where they differ.
    fn is(&self, said: &[u8]) -> bool {
        let differs = self.0.iter().enumerate().fold(self.0.len() ^ said.len(), |differs, (at, letter)| {
            differs | usize::from(letter ^ black_box(said.get(at).copied().unwrap_or(0)))
        });
        black_box(differs) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Whether an address is of this machine alone.
pub(super) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Whether who asks may read: he is on this machine, or has the token.
pub(super) fn trusts(token: Option<&Token>, address: SocketAddr, headers: &HeaderMap) -> bool {
    refuses(token, address, Who::Reader, headers).is_none()
}

/// `None` where the call may be made.
pub(super) fn refuses(token: Option<&Token>, address: SocketAddr, who: Who, headers: &HeaderMap) -> Option<Answer> {
    if is_loopback(address) && !headers.get(HOST).is_some_and(|host| is_ours(host.to_str().unwrap_or(""))) {
        let text = "the Host header names no address of this machine";
        return Some(Answer::refused(StatusCode::MISDIRECTED_REQUEST, text, "ask 127.0.0.1, localhost or [::1]"));
    }
    let needs = match who {
        Who::Anyone => false,
        Who::Reader => !is_loopback(address),
        Who::Administrator => true,
    };
    if !needs {
        return None;
    }
    let Some(token) = token else {
        let text = "no token is set, and so nobody administers this from here";
        return Some(Answer::refused(
            StatusCode::FORBIDDEN,
            text,
            "set LITTORAL_ADMIN_TOKEN, or --token-file, and start it again",
        ));
    };
    let said = headers.get(AUTHORIZATION).and_then(|said| said.to_str().ok()).unwrap_or("");
    let (scheme, rest) = said.split_once(' ').unwrap_or((said, ""));
    let is_right = match scheme.to_ascii_lowercase().as_str() {
        "bearer" => token.is(rest.trim().as_bytes()),
        // A browser asks its user for it; the name does not matter.
        "basic" if who == Who::Reader => password(rest.trim()).is_some_and(|said| token.is(&said)),
        _ => false,
    };
    if is_right {
        return None;
    }
    let text = if said.is_empty() { "this needs the token" } else { "that is not the token" };
    let scheme = if who == Who::Reader { "Basic realm=\"littoral\"" } else { "Bearer" };
    let refused = Answer::refused(StatusCode::UNAUTHORIZED, text, "send it as Authorization: Bearer TOKEN");
    Some(refused.with("www-authenticate", scheme.to_owned()))
}

/// The password of HTTP's Basic scheme.
fn password(text: &str) -> Option<Vec<u8>> {
    let bytes = base64(text)?;
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    Some(bytes.get(colon + 1..)?.to_vec())
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

/// Whether a Host header names this machine.
fn is_ours(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return is_loopback(address);
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() && !name.contains(':') => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a-token-of-some-length";

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn status(address: &str, who: Who, token: bool, said: &[(&'static str, &str)]) -> Option<u16> {
        let token = token.then(|| Token::new(SECRET).unwrap());
        let refused = refuses(token.as_ref(), address.parse().unwrap(), who, &headers(said));
        refused.inspect(|answer| assert!(!answer.body.contains(SECRET))).map(|answer| answer.status.as_u16())
    }

    #[test]
    fn an_administrator_has_the_token_and_a_reader_needs_it_only_from_elsewhere() {
        let (here, there) = ("127.0.0.1:1", "10.1.2.3:1");
        let local = ("host", "localhost:9464");
        let right = format!("Bearer {SECRET}");
        let other = format!("bearer {SECRET}x");
        for (address, who, token, said, refused) in [
            (here, Who::Reader, false, vec![local], None),
            (here, Who::Anyone, false, vec![local], None),
            (here, Who::Administrator, false, vec![local, ("authorization", right.as_str())], Some(403)),
            (here, Who::Administrator, true, vec![local], Some(401)),
            (here, Who::Administrator, true, vec![local, ("authorization", other.as_str())], Some(401)),
            (here, Who::Administrator, true, vec![local, ("authorization", "Bearer")], Some(401)),
            (here, Who::Administrator, true, vec![local, ("authorization", right.as_str())], None),
            (there, Who::Anyone, true, vec![], None),
            (there, Who::Reader, true, vec![], Some(401)),
            (there, Who::Reader, true, vec![("authorization", right.as_str())], None),
            // me:a-token-of-some-length
            (there, Who::Reader, true, vec![("authorization", "Basic bWU6YS10b2tlbi1vZi1zb21lLWxlbmd0aA==")], None),
            (
                there,
                Who::Administrator,
                true,
                vec![("authorization", "Basic bWU6YS10b2tlbi1vZi1zb21lLWxlbmd0aA==")],
                Some(401),
            ),
            (there, Who::Reader, true, vec![("authorization", "Basic %%%")], Some(401)),
            (here, Who::Reader, false, vec![("host", "evil.example:9464")], Some(421)),
            (here, Who::Reader, false, vec![], Some(421)),
        ] {
            assert_eq!(status(address, who, token, &said), refused, "{address} {who:?} {token} {said:?}");
        }
    }

    #[test]
    fn a_token_is_compared_whole() {
        let token = Token::new(SECRET).unwrap();
        assert!(token.is(SECRET.as_bytes()));
        for other in ["", "a", "a-token-of-some-lengt", "a-token-of-some-lengtH", "a-token-of-some-length "] {
            assert!(!token.is(other.as_bytes()), "{other}");
        }
        assert_eq!(format!("{token:?}"), "Token");
        for wrong in ["", "short", "sixteen letters and spaces", "not-ascii-é-not-ascii"] {
            Token::new(wrong).unwrap_err();
        }
    }

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        for (host, is) in [
            ("127.0.0.1:80", true),
            ("127.9.9.9", true),
            ("[::1]:80", true),
            ("[::1]", true),
            ("LocalHost", true),
            ("localhost.evil.example", false),
            ("10.0.0.1:80", false),
            ("", false),
            ("127.0.0.1.evil.example:80", false),
        ] {
            assert_eq!(is_ours(host), is, "{host}");
        }
    }
}
