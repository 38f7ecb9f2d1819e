//! What businesses and programs offer in a chat to be tapped (buttons, lists, templates, cards, products), and what was
//! tapped of it. Pure, over protobufs that strangers made: everything is bounded before it is kept.

use serde_json::Value;
use whatsapp_rust::prelude::wa;
use whatsapp_rust::prelude::wa::message as kind;

use super::contents::{one_line, whole};
use super::files;
use super::kinds::{
    LINE_MAX, LIST_MAX, Layer, choices, first, joined, line, lines, place, thousandths, told, words,
};
use crate::types::Media;

/// How deep cards are looked into: those of a carousel have none of their own.
pub const CARDS_DEEP: usize = 1;

/// What was put together from several parts.
pub struct Composed {
    text: String,
    media: Option<Media>,
}

impl Composed {
    pub fn layer<'m>(self) -> Layer<'m> {
        Layer::Said { text: self.text, media: self.media }
    }
}

pub fn pressed(chosen: &kind::ButtonsResponseMessage) -> String {
    use kind::buttons_response_message::Response;
    let shown = chosen.response.as_ref().map(|Response::SelectedDisplayText(shown)| whole(shown));
    first([shown.unwrap_or_default(), words(&chosen.selected_button_id)])
}

/// What was tapped in an interactive message: as the person saw it, else as the program that reads it.
pub fn answered(chosen: &kind::InteractiveResponseMessage) -> String {
    use kind::interactive_response_message::InteractiveResponseMessage;
    let shown = chosen.body.as_option().map(|body| words(&body.text)).unwrap_or_default();
    let Some(InteractiveResponseMessage::NativeFlowResponseMessage(flow)) =
        &chosen.interactive_response_message
    else {
        return shown;
    };
    first([shown, tapped(&flow.params_json), words(&flow.name)])
}

/// The words of what was tapped, in the parameters of a native flow.
fn tapped(params: &Option<String>) -> String {
    let Ok(params) = serde_json::from_str::<Value>(&words(params)) else { return String::new() };
    let word = |key: &str| params.get(key).and_then(Value::as_str).map(whole).unwrap_or_default();
    first(["display_text", "title", "text", "description", "id", "selected_row_id"].map(word))
}

pub fn buttons(offered: &kind::ButtonsMessage) -> Composed {
    use kind::buttons_message::Header;
    let (title, media) = match &offered.header {
        Some(Header::Text(title)) => (whole(title), None),
        Some(Header::DocumentMessage(document)) => (String::new(), Some(files::document(document))),
        Some(Header::ImageMessage(image)) => (String::new(), Some(files::image(image))),
        Some(Header::VideoMessage(video)) => (String::new(), Some(files::video(video))),
        Some(Header::LocationMessage(location)) => (place(location), None),
        None => (String::new(), None),
    };
    let names = offered.buttons.iter().map(|button| {
        button.button_text.as_option().map(|text| line(&text.display_text)).unwrap_or_default()
    });
    let text =
        lines([title, words(&offered.content_text), words(&offered.footer_text), choices("Buttons", names)]);
    Composed { text, media }
}

pub fn list(offered: &kind::ListMessage) -> String {
    let rows = offered.sections.iter().flat_map(|section| section.rows.iter().map(|row| line(&row.title)));
    lines([
        words(&offered.title),
        words(&offered.description),
        words(&offered.footer_text),
        choices("Choices", rows),
    ])
}

pub fn template(offered: &kind::TemplateMessage) -> Composed {
    use kind::template_message::Format;
    match &offered.format {
        Some(Format::HydratedFourRowTemplate(template)) => hydrated(template),
        Some(Format::InteractiveMessageTemplate(template)) => interactive(template, CARDS_DEEP),
        Some(Format::FourRowTemplate(template)) => four_rows(template),
        None => offered
            .hydrated_template
            .as_option()
            .map(hydrated)
            .unwrap_or(Composed { text: "[Template]".to_owned(), media: None }),
    }
}

fn hydrated(template: &kind::template_message::HydratedFourRowTemplate) -> Composed {
    use kind::template_message::hydrated_four_row_template::Title;
    use wa::hydrated_template_button::HydratedButton;
    let (title, media) = match &template.title {
        Some(Title::HydratedTitleText(title)) => (whole(title), None),
        Some(Title::DocumentMessage(document)) => (String::new(), Some(files::document(document))),
        Some(Title::ImageMessage(image)) => (String::new(), Some(files::image(image))),
        Some(Title::VideoMessage(video)) => (String::new(), Some(files::video(video))),
        Some(Title::LocationMessage(location)) => (place(location), None),
        None => (String::new(), None),
    };
    let names = template.hydrated_buttons.iter().map(|button| match &button.hydrated_button {
        Some(HydratedButton::QuickReplyButton(button)) => line(&button.display_text),
        Some(HydratedButton::UrlButton(button)) => {
            joined([line(&button.display_text), line(&button.url)], " ")
        }
        Some(HydratedButton::CallButton(button)) => {
            joined([line(&button.display_text), line(&button.phone_number)], " ")
        }
        None => String::new(),
    });
    let text = lines([
        title,
        words(&template.hydrated_content_text),
        words(&template.hydrated_footer_text),
        choices("Buttons", names),
    ]);
    Composed { text, media }
}

fn four_rows(template: &kind::template_message::FourRowTemplate) -> Composed {
    use kind::template_message::four_row_template::Title;
    let (title, media) = match &template.title {
        Some(Title::HighlyStructuredMessage(title)) => (parameters(title), None),
        Some(Title::DocumentMessage(document)) => (String::new(), Some(files::document(document))),
        Some(Title::ImageMessage(image)) => (String::new(), Some(files::image(image))),
        Some(Title::VideoMessage(video)) => (String::new(), Some(files::video(video))),
        Some(Title::LocationMessage(location)) => (place(location), None),
        None => (String::new(), None),
    };
    let [content, footer] = [&template.content, &template.footer]
        .map(|part| part.as_option().map(parameters).unwrap_or_default());
    let text = lines([title, content, footer]);
    Composed { text: first([text, "[Template]".to_owned()]), media }
}

/// A text that a business had made by WhatsApp: with its words if they are there, else by its name.
pub fn structured(offered: &kind::HighlyStructuredMessage) -> Composed {
    match offered.hydrated_hsm.as_option() {
        Some(template) => match &template.format {
            Some(kind::template_message::Format::HydratedFourRowTemplate(template)) => hydrated(template),
            Some(_) | None => template
                .hydrated_template
                .as_option()
                .map(hydrated)
                .unwrap_or(Composed { text: parameters(offered), media: None }),
        },
        None => Composed { text: parameters(offered), media: None },
    }
}

fn parameters(offered: &kind::HighlyStructuredMessage) -> String {
    let params = offered.params.iter().take(LIST_MAX).map(|param| one_line(param, LINE_MAX));
    let local = offered.localizable_params.iter().take(LIST_MAX).map(|param| line(&param.default));
    told("Template", [line(&offered.element_name), joined(params.chain(local), " · ")])
}

pub fn interactive(offered: &kind::InteractiveMessage, cards_deep: usize) -> Composed {
    use kind::interactive_message::InteractiveMessage as Kind;
    use kind::interactive_message::header::Media as Shown;
    let header = offered.header.as_option();
    let (shown, media) = match header.and_then(|header| header.media.as_ref()) {
        Some(Shown::DocumentMessage(document)) => (String::new(), Some(files::document(document))),
        Some(Shown::ImageMessage(image)) => (String::new(), Some(files::image(image))),
        Some(Shown::VideoMessage(video)) => (String::new(), Some(files::video(video))),
        Some(Shown::LocationMessage(location)) => (place(location), None),
        Some(Shown::ProductMessage(offered)) => {
            let Composed { text, media } = product(offered);
            (text, media)
        }
        Some(Shown::JpegThumbnail(_)) | None => (String::new(), None),
    };
    let title =
        header.map(|header| lines([words(&header.title), words(&header.subtitle)])).unwrap_or_default();
    let body = offered.body.as_option().map(|body| words(&body.text)).unwrap_or_default();
    let footer = offered.footer.as_option().map(|footer| words(&footer.text)).unwrap_or_default();
    let offers = match &offered.interactive_message {
        Some(Kind::NativeFlowMessage(flow)) => choices(
            "Buttons",
            flow.buttons.iter().map(|button| first([tapped(&button.button_params_json), line(&button.name)])),
        ),
        Some(Kind::CarouselMessage(carousel)) if cards_deep > 0 => {
            lines(carousel.cards.iter().take(LIST_MAX).map(|card| interactive(card, cards_deep - 1).text))
        }
        Some(Kind::CollectionMessage(_)) => "[Collection of products]".to_owned(),
        Some(Kind::ShopStorefrontMessage(_)) => "[Shop]".to_owned(),
        Some(Kind::CarouselMessage(_)) | None => String::new(),
    };
    let widget = offered.bloks_widget.as_option().map(|widget| words(&widget.fallback)).unwrap_or_default();
    let text = lines([title, shown, body, footer, offers, widget]);
    let text = if text.is_empty() && media.is_none() { "[Interactive message]".to_owned() } else { text };
    Composed { text, media }
}

pub fn product(offered: &kind::ProductMessage) -> Composed {
    let product = offered.product.as_option();
    let media = product.and_then(|product| product.product_image.as_option()).map(files::image);
    let about = match (product, offered.catalog.as_option()) {
        (Some(product), _) => {
            let price = thousandths(product.price_amount1000, &product.currency_code);
            let parts = [line(&product.title), price, line(&product.url)];
            lines([told("Product", parts), words(&product.description)])
        }
        (None, Some(catalog)) => {
            lines([told("Catalogue", [line(&catalog.title)]), words(&catalog.description)])
        }
        (None, None) => "[Product]".to_owned(),
    };
    Composed { text: lines([about, words(&offered.body), words(&offered.footer)]), media }
}
