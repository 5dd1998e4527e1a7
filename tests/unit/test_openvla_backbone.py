import torch

from avavla_ray.policy.openvla.backbone import OpenVlaBackbone
from avavla_ray.policy.openvla.config import preset
from avavla_ray.policy.openvla.model import OpenVla
from avavla_ray.policy.openvla.sequence import TextBatch


@torch.no_grad()
def test_the_seam_computes_what_the_model_does_alone() -> None:
    torch.manual_seed(0)
    model = OpenVla(preset("openvla_oft_tiny")).eval()
    backbone = OpenVlaBackbone(model)
    images = torch.randint(0, 256, (2, 2, 56, 56, 3), dtype=torch.uint8)
    ids, proprio = torch.randint(3, 290, (2, 6)), torch.randn(2, 8)
    ids[1, :2] = model.config.language.padding
    features, reading = backbone.see(images), backbone.read(ids)
    assert features.pooled.shape == (2, 2, backbone.pooled_width)
    torch.testing.assert_close(features.tokens, model.encode_images(images))
    torch.testing.assert_close(reading.mean[1], model.embed_text(ids[1, 2:]).mean(0))
    actions = torch.randn(2, 56, 64)
    hidden, output = backbone.mix(
        features.tokens, None, reading.tokens, reading.present, backbone.feel(proprio), actions
    )
    alone = model.decode(
        features.tokens[1:], reading.tokens[1:, 2:], None, proprio=model.embed_proprio(proprio[1:]), actions=actions[1:]
    )
    torch.testing.assert_close(hidden[1:], alone.before)
    torch.testing.assert_close(output[1:], alone.last)


@torch.no_grad()
def test_a_model_that_decodes_one_token_at_a_time_does_so_behind_the_seam() -> None:
    torch.manual_seed(0)
    model = OpenVla(preset("openvla_tiny")).eval()
    backbone = OpenVlaBackbone(model)
    images, ids = torch.randint(0, 256, (2, 1, 56, 56, 3), dtype=torch.uint8), torch.randint(3, 290, (2, 6))
    features, reading = backbone.see(images), backbone.read(ids)
    nothing = torch.zeros(2, 7, 64)
    hidden, output = backbone.mix(features.tokens, None, reading.tokens, reading.present, None, nothing)
    assert hidden.shape == output.shape == (2, 7, 64)
    assert torch.equal(backbone.read_actions(output), model.act(images, TextBatch(ids, None)))
    _, pushed = backbone.mix(features.tokens, None, reading.tokens, reading.present, None, nothing + 1)
    torch.testing.assert_close(output[:, 0], pushed[:, 0])
    assert not torch.allclose(output[:, 1], pushed[:, 1])
