//! What businesses and programs offer in a chat to be tapped (buttons, lists, templates, cards, products),
//! and what was tapped of it. Pure, over protobufs that strangers made: everything is bounded before it is
//! kept.

use serde_json::Value;
use whatsapp_rust::prelude::wa;
use whatsapp_rust::prelude::wa::message as kind;

use super::files;
use super::wording::{
    LINE_MAX, LIST_MAX, clean_line, first_non_blank, join_lines, join_non_empty, optional_line,
    optional_text, render_choice_list, render_labelled, render_location, render_thousandths, shorten_middle,
};
use crate::types::Media;

/// How deep cards are looked into: the cards of a carousel have no cards of their own.
pub const CARDS_DEEP: usize = 1;

/// What was put together from several parts.
pub struct ComposedOffer {
    pub text: String,
    pub media: Option<Media>,
}

pub fn render_pressed_button(chosen: &kind::ButtonsResponseMessage) -> String {
    use kind::buttons_response_message::Response;
    let shown = chosen.response.as_ref().map(|Response::SelectedDisplayText(shown)| shorten_middle(shown));
    first_non_blank([shown.unwrap_or_default(), optional_text(&chosen.selected_button_id)])
}

/// What was tapped in an interactive message: as the person saw it, else as the program that reads it.
pub fn render_interactive_response(chosen: &kind::InteractiveResponseMessage) -> String {
    use kind::interactive_response_message::InteractiveResponseMessage;
    let shown = chosen.body.as_option().map(|body| optional_text(&body.text)).unwrap_or_default();
    let Some(InteractiveResponseMessage::NativeFlowResponseMessage(flow)) =
        &chosen.interactive_response_message
    else {
        return shown;
    };
    first_non_blank([shown, render_native_flow(&flow.params_json), optional_text(&flow.name)])
}

/// The words of what was tapped, in the parameters of a native flow.
fn render_native_flow(params: &Option<String>) -> String {
    let Ok(params) = serde_json::from_str::<Value>(&optional_text(params)) else { return String::new() };
    let word = |key: &str| params.get(key).and_then(Value::as_str).map(shorten_middle).unwrap_or_default();
    first_non_blank(["display_text", "title", "text", "description", "id", "selected_row_id"].map(word))
}

pub fn compose_buttons(offered: &kind::ButtonsMessage) -> ComposedOffer {
    use kind::buttons_message::Header;
    let (title, media) = match &offered.header {
        Some(Header::Text(title)) => (shorten_middle(title), None),
        Some(Header::DocumentMessage(document)) => (String::new(), Some(files::document_media(document))),
        Some(Header::ImageMessage(image)) => (String::new(), Some(files::image_media(image))),
        Some(Header::VideoMessage(video)) => (String::new(), Some(files::video_media(video))),
        Some(Header::LocationMessage(location)) => (render_location(location), None),
        None => (String::new(), None),
    };
    let names = offered.buttons.iter().map(|button| {
        button.button_text.as_option().map(|text| optional_line(&text.display_text)).unwrap_or_default()
    });
    let text = join_lines([
        title,
        optional_text(&offered.content_text),
        optional_text(&offered.footer_text),
        render_choice_list("Buttons", names),
    ]);
    ComposedOffer { text, media }
}

pub fn render_list_message(offered: &kind::ListMessage) -> String {
    let rows =
        offered.sections.iter().flat_map(|section| section.rows.iter().map(|row| optional_line(&row.title)));
    join_lines([
        optional_text(&offered.title),
        optional_text(&offered.description),
        optional_text(&offered.footer_text),
        render_choice_list("Choices", rows),
    ])
}

pub fn compose_template(offered: &kind::TemplateMessage) -> ComposedOffer {
    use kind::template_message::Format;
    match &offered.format {
        Some(Format::HydratedFourRowTemplate(template)) => compose_hydrated_template(template),
        Some(Format::InteractiveMessageTemplate(template)) => compose_interactive(template, CARDS_DEEP),
        Some(Format::FourRowTemplate(template)) => compose_four_row_template(template),
        None => offered
            .hydrated_template
            .as_option()
            .map(compose_hydrated_template)
            .unwrap_or(ComposedOffer { text: "[Template]".to_owned(), media: None }),
    }
}

fn compose_hydrated_template(template: &kind::template_message::HydratedFourRowTemplate) -> ComposedOffer {
    use kind::template_message::hydrated_four_row_template::Title;
    use wa::hydrated_template_button::HydratedButton;
    let (title, media) = match &template.title {
        Some(Title::HydratedTitleText(title)) => (shorten_middle(title), None),
        Some(Title::DocumentMessage(document)) => (String::new(), Some(files::document_media(document))),
        Some(Title::ImageMessage(image)) => (String::new(), Some(files::image_media(image))),
        Some(Title::VideoMessage(video)) => (String::new(), Some(files::video_media(video))),
        Some(Title::LocationMessage(location)) => (render_location(location), None),
        None => (String::new(), None),
    };
    let names = template.hydrated_buttons.iter().map(|button| match &button.hydrated_button {
        Some(HydratedButton::QuickReplyButton(button)) => optional_line(&button.display_text),
        Some(HydratedButton::UrlButton(button)) => {
            join_non_empty([optional_line(&button.display_text), optional_line(&button.url)], " ")
        }
        Some(HydratedButton::CallButton(button)) => {
            join_non_empty([optional_line(&button.display_text), optional_line(&button.phone_number)], " ")
        }
        None => String::new(),
    });
    let text = join_lines([
        title,
        optional_text(&template.hydrated_content_text),
        optional_text(&template.hydrated_footer_text),
        render_choice_list("Buttons", names),
    ]);
    ComposedOffer { text, media }
}

fn compose_four_row_template(template: &kind::template_message::FourRowTemplate) -> ComposedOffer {
    use kind::template_message::four_row_template::Title;
    let (title, media) = match &template.title {
        Some(Title::HighlyStructuredMessage(title)) => (render_template_parameters(title), None),
        Some(Title::DocumentMessage(document)) => (String::new(), Some(files::document_media(document))),
        Some(Title::ImageMessage(image)) => (String::new(), Some(files::image_media(image))),
        Some(Title::VideoMessage(video)) => (String::new(), Some(files::video_media(video))),
        Some(Title::LocationMessage(location)) => (render_location(location), None),
        None => (String::new(), None),
    };
    let [content, footer] = [&template.content, &template.footer]
        .map(|part| part.as_option().map(render_template_parameters).unwrap_or_default());
    let text = join_lines([title, content, footer]);
    ComposedOffer { text: first_non_blank([text, "[Template]".to_owned()]), media }
}

/// A text that a business had made by WhatsApp: with its words if they are there, else by its name.
pub fn compose_structured_text(offered: &kind::HighlyStructuredMessage) -> ComposedOffer {
    match offered.hydrated_hsm.as_option() {
        Some(template) => match &template.format {
            Some(kind::template_message::Format::HydratedFourRowTemplate(template)) => {
                compose_hydrated_template(template)
            }
            Some(_) | None => template
                .hydrated_template
                .as_option()
                .map(compose_hydrated_template)
                .unwrap_or(ComposedOffer { text: render_template_parameters(offered), media: None }),
        },
        None => ComposedOffer { text: render_template_parameters(offered), media: None },
    }
}

fn render_template_parameters(offered: &kind::HighlyStructuredMessage) -> String {
    let params = offered.params.iter().take(LIST_MAX).map(|param| clean_line(param, LINE_MAX));
    let local = offered.localizable_params.iter().take(LIST_MAX).map(|param| optional_line(&param.default));
    render_labelled(
        "Template",
        [optional_line(&offered.element_name), join_non_empty(params.chain(local), " · ")],
    )
}

pub fn compose_interactive(offered: &kind::InteractiveMessage, cards_deep: usize) -> ComposedOffer {
    use kind::interactive_message::InteractiveMessage as Kind;
    use kind::interactive_message::header::Media as Shown;
    let header = offered.header.as_option();
    let (shown, media) = match header.and_then(|header| header.media.as_ref()) {
        Some(Shown::DocumentMessage(document)) => (String::new(), Some(files::document_media(document))),
        Some(Shown::ImageMessage(image)) => (String::new(), Some(files::image_media(image))),
        Some(Shown::VideoMessage(video)) => (String::new(), Some(files::video_media(video))),
        Some(Shown::LocationMessage(location)) => (render_location(location), None),
        Some(Shown::ProductMessage(offered)) => {
            let ComposedOffer { text, media } = compose_product(offered);
            (text, media)
        }
        Some(Shown::JpegThumbnail(_)) | None => (String::new(), None),
    };
    let title = header
        .map(|header| join_lines([optional_text(&header.title), optional_text(&header.subtitle)]))
        .unwrap_or_default();
    let body = offered.body.as_option().map(|body| optional_text(&body.text)).unwrap_or_default();
    let footer = offered.footer.as_option().map(|footer| optional_text(&footer.text)).unwrap_or_default();
    let offers = match &offered.interactive_message {
        Some(Kind::NativeFlowMessage(flow)) => render_choice_list(
            "Buttons",
            flow.buttons.iter().map(|button| {
                first_non_blank([render_native_flow(&button.button_params_json), optional_line(&button.name)])
            }),
        ),
        Some(Kind::CarouselMessage(carousel)) if cards_deep > 0 => join_lines(
            carousel.cards.iter().take(LIST_MAX).map(|card| compose_interactive(card, cards_deep - 1).text),
        ),
        Some(Kind::CollectionMessage(_)) => "[Collection of products]".to_owned(),
        Some(Kind::ShopStorefrontMessage(_)) => "[Shop]".to_owned(),
        Some(Kind::CarouselMessage(_)) | None => String::new(),
    };
    let widget =
        offered.bloks_widget.as_option().map(|widget| optional_text(&widget.fallback)).unwrap_or_default();
    let text = join_lines([title, shown, body, footer, offers, widget]);
    let text = if text.is_empty() && media.is_none() { "[Interactive message]".to_owned() } else { text };
    ComposedOffer { text, media }
}

pub fn compose_product(offered: &kind::ProductMessage) -> ComposedOffer {
    let product = offered.product.as_option();
    let media = product.and_then(|product| product.product_image.as_option()).map(files::image_media);
    let about = match (product, offered.catalog.as_option()) {
        (Some(product), _) => {
            let price = render_thousandths(product.price_amount1000, &product.currency_code);
            let parts = [optional_line(&product.title), price, optional_line(&product.url)];
            join_lines([render_labelled("Product", parts), optional_text(&product.description)])
        }
        (None, Some(catalog)) => join_lines([
            render_labelled("Catalogue", [optional_line(&catalog.title)]),
            optional_text(&catalog.description),
        ]),
        (None, None) => "[Product]".to_owned(),
    };
    ComposedOffer {
        text: join_lines([about, optional_text(&offered.body), optional_text(&offered.footer)]),
        media,
    }
}
