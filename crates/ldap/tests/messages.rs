//! Messages as OpenLDAP writes them, names that mean no good, and bytes that are nothing.

use ldap::{DnPattern, Filter, Malformed, Message, Outcome, Request, Response, Scope};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|it| !it.is_whitespace()).collect();
    let byte = |pair: &[char]| {
        u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("two digits")
    };
    digits.chunks(2).map(byte).collect()
}

fn search<'a>(filter: &'a Filter, name: &'a str) -> Vec<u8> {
    let (base, scope) = ("dc=x", Scope::Subtree);
    let attributes = &["uid"];
    let (entries_max, seconds_max) = (2, 5);
    Request::Search { base, scope, entries_max, seconds_max, filter, name, attributes }.to_bytes(7)
}

#[test]
fn requests_are_as_ldapsearch_writes_them() {
    // RFC 4511, 4.14.1, with the number 1.
    let start = hex("301d 0201 01 7718 8016 312e332e362e312e342e312e313436362e3230303337");
    assert_eq!(Request::StartTls.to_bytes(1), start);
    let bind = Request::Bind { dn: "cn=a", password: "pw" }.to_bytes(2);
    assert_eq!(bind, hex("3012 0201 02 600d 0201 03 0404 636e3d61 8002 7077"));
    assert_eq!(Request::Unbind.to_bytes(128), hex("3006 0202 0080 4200"));
    let filter = Filter::parse("(uid={name})").unwrap();
    let wanted = "302e 0201 07 6329 0404 64633d78 0a0102 0a0100 020102 020105 010100 \
                  a30b 0403 756964 0404 616e6e61 3005 0403 756964";
    assert_eq!(search(&filter, "anna"), hex(wanted));
}

#[test]
fn filters_are_read_as_rfc_4515_has_them() {
    let written = |text: &str| {
        let bytes = search(&Filter::parse(text).unwrap_or_else(|error| panic!("{error}")), "anna");
        // Between what comes before it and the attributes.
        bytes[28..bytes.len() - 7].to_vec()
    };
    for (text, wanted) in [
        ("(cn=*)", "8702 636e"),
        ("(!(cn=*))", "a204 8702 636e"),
        ("(&(a=1)(b=2))", "a010 a306 040161 040131 a306 040162 040132"),
        ("(|(a>=1)(b<=2)(c~=3))", "a118 a506 040161 040131 a606 040162 040132 a806 040163 040133"),
        ("(cn=b*c*d)", "a40f 0402 636e 3009 8001 62 8101 63 8201 64"),
        ("(cn=*{name}*)", "a40c 0402 636e 3006 8104 616e6e61"),
        ("(cn=\\2a\\28)", "a308 0402 636e 0402 2a28"),
        ("(cn=x{name}@y)", "a30d 0402 636e 0407 78616e6e614079"),
        ("(a:1.2:=v)", "a90b 8103 312e32 8201 61 8301 76"),
        ("(a:dn:=v)", "a909 8201 61 8301 76 8401 ff"),
    ] {
        assert_eq!(written(text), hex(wanted), "{text}");
    }
    for (text, why) in [
        ("", "a bracket ( is missing"),
        ("uid={name}", "a bracket ( is missing"),
        ("(uid={name}", "a bracket ) is missing"),
        ("(uid={name}))", "behind the last bracket"),
        ("(uid)", "attribute=value is missing"),
        ("(=x)", "name of an attribute"),
        ("(u d=x)", "name of an attribute"),
        ("(&)", "a bracket ( is missing"),
        ("(cn=a**b)", "two ** stand side by side"),
        ("(cn=a\\2)", "two hex digits"),
        ("(cn=a\\+1)", "two hex digits"),
        ("(cn=\\é)", "two hex digits"),
        ("(cn>=a*)", "written as \\2a"),
        (":=x", "a bracket ( is missing"),
        ("(:=x)", "an attribute is missing"),
    ] {
        let error = Filter::parse(text).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
    let deep = "(!".repeat(40) + "(a=b)" + &")".repeat(40);
    assert!(Filter::parse(&deep).unwrap_err().to_string().contains("within brackets"));
    let has_name = |text: &str| Filter::parse(text).unwrap().has_name();
    assert!(has_name("(&(a=b)(uid={name}))") && has_name("(cn=a*{name})"));
    // This finds everybody else.
    assert!(!has_name("(a=b)") && !has_name("(!(uid={name}))"));
}

#[test]
fn no_name_breaks_out_of_a_filter_or_a_distinguished_name() {
    let filter = Filter::parse("(uid={name})").unwrap();
    for name in ["*", ")(uid=*", "anna\0", "\\2a", "{name}", "a&b|c"] {
        let request = search(&filter, name);
        let mut value = vec![0x04, name.len() as u8];
        value.extend_from_slice(name.as_bytes());
        // Equality, with the name as it is.
        let mut wanted = vec![0xa3, 5 + value.len() as u8, 0x04, 3];
        wanted.extend_from_slice(b"uid");
        wanted.extend(value);
        assert!(request.windows(wanted.len()).any(|window| window == wanted), "{name:?}");
    }
    let pattern = DnPattern::new("uid={name},ou=people").unwrap();
    for (name, wanted) in [
        ("anna", "uid=anna,ou=people"),
        ("a,ou=admins", "uid=a\\,ou\\=admins,ou=people"),
        ("#a+b", "uid=\\#a\\+b,ou=people"),
        (" a ", "uid=\\ a\\ ,ou=people"),
        ("a\0\"\\<>;", "uid=a\\00\\\"\\\\\\<\\>\\;,ou=people"),
        ("{name}", "uid={name},ou=people"),
        ("jürgen", "uid=jürgen,ou=people"),
    ] {
        assert_eq!(pattern.of(name), wanted);
    }
    assert_eq!(DnPattern::new("uid=x"), None);
    assert_eq!(DnPattern::new("uid={name},cn={name}"), None);
}

/// Responses, with what they say.
fn responses() -> Vec<(Vec<u8>, Message)> {
    let outcome = |code, text: &str| Outcome { code, text: text.to_owned() };
    vec![
        (
            hex("300c 0201 01 6107 0a0100 0400 0400"),
            Message { id: 1, response: Response::Bind(outcome(0, "")) },
        ),
        (
            hex("300e 0201 02 6109 0a0131 0400 0402 6e6f"),
            Message { id: 2, response: Response::Bind(outcome(49, "no")) },
        ),
        (
            hex("3030 0201 03 642b 0408 7569643d616e6e61 301f \
                 3010 0403 756964 3109 0404 616e6e61 0401 61 300b 0403 6a7067 3104 0402 ffd8"),
            Message {
                id: 3,
                response: Response::Entry {
                    dn: "uid=anna".into(),
                    attributes: vec![
                        ("uid".into(), vec!["anna".into(), "a".into()]),
                        ("jpg".into(), vec![]),
                    ],
                },
            },
        ),
        (
            // With a length of four bytes, as Active Directory writes it, and controls behind it.
            hex("3084 00000012 0201 03 6584 00000007 0a0104 0400 0400 a000"),
            Message { id: 3, response: Response::SearchDone(outcome(4, "")) },
        ),
        (hex("3005 0201 03 7300"), Message { id: 3, response: Response::Reference }),
        (
            hex("3010 0201 00 780b 0a0134 0400 0404 6279652e"),
            Message { id: 0, response: Response::Extended(outcome(52, "bye.")) },
        ),
        (hex("3005 0201 09 4200"), Message { id: 9, response: Response::Other(0x42) }),
    ]
}

#[test]
fn responses_are_read_and_every_prefix_of_one_is_an_error() {
    for (bytes, wanted) in responses() {
        assert_eq!(Message::parse(&bytes), Ok(wanted.clone()));
        assert_eq!(ldap::message_length(&bytes), Ok(Some(bytes.len())));
        for length in 0..bytes.len() {
            assert!(Message::parse(&bytes[..length]).is_err(), "{wanted:?}: {length}");
            let told = ldap::message_length(&bytes[..length]).unwrap();
            assert!(told.is_none_or(|told| told == bytes.len()));
        }
        // Nothing that is changed in it makes it panic.
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let _ = (Message::parse(&changed), ldap::message_length(&changed));
            }
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Message::parse(&longer), Err(Malformed::Trailing(1)));
    }
}

#[test]
fn what_no_message_begins_with_is_told_at_once() {
    let length = |text: &str| ldap::message_length(&hex(text));
    assert!(matches!(length("48"), Err(Malformed::Tag { .. })), "HTTP");
    assert!(matches!(length("1503"), Err(Malformed::Tag { .. })), "TLS");
    assert!(matches!(length("3080"), Err(Malformed::Length(_))), "no length");
    assert!(matches!(length("308400010000"), Err(Malformed::Length(_))), "too long");
    assert!(matches!(length("30880000"), Err(Malformed::Length(_))));
    assert_eq!(length("30"), Ok(None));
    assert_eq!(length("3082ff"), Ok(None));
    // Brackets within brackets, as deep as a message can be, cost no stack.
    let deep = [0x30, 0x80 | 2, 0xff, 0xf0].repeat(10_000);
    assert!(Message::parse(&deep).is_err());
}
