"use strict";
// The server's sentences in Chinese. Written by tools/write_translations.py.

export const CHINESE = {
  "\"json\" or a JSON schema":
    "\"json\" 或 JSON schema",
  "--activations int8 has no effect: the model is not quantized.":
    "--activations int8 不起作用：该模型没有量化。",
  "--held-out must be a share such as 10%, a number of answers or 0, not {value}.":
    "--held-out 必须是份额（例如 10%）、回答的数量或 0，而不是 {value}。",
  "--held-out must be a share such as 10%, a number of answers, 0, or a file of rows, not {value}.":
    "--held-out 必须是比例（如 10%）、回答数、0 或数据行文件，而不是 {value}。",
  "--lm-head works only with `{model}`; the lm_head of a folder is already stored.":
    "--lm-head 只能与 `{model}` 一起使用；文件夹的 lm_head 已经存好。",
  "--measure measures the processor, but this plan is for a GPU.":
    "--measure 测量处理器，而这个计划是为 GPU 做的。",
  "--vram and --card describe a GPU, but --device cpu uses none.":
    "--vram 和 --card 描述的是 GPU，而 --device cpu 不使用 GPU。",
  "--vram has no effect: the model runs on the CPU, in RAM.":
    "--vram 没有作用：模型在 CPU 上运行，使用内存。",
  "--vram has {given} sizes, but the number of usable GPUs is {count}.":
    "--vram 有 {given} 个大小，但可用的 GPU 有 {count} 个。",
  "1 is the adapter as it was trained; 0.5 halves its effect.":
    "1 表示适配器训练时的效果；0.5 使其效果减半。",
  "32-bit":
    " 32 位",
  "4-bit matrices that are used for every token are in RAM twice, as stored and packed for this processor: {size} more.":
    "每个 token 都要用的 4 位矩阵在内存中有两份：存储时的形式，以及为此处理器打包的形式：另需 {size}。",
  "A CogVLM2 model without weights can't be made.":
    "无法创建没有权重的 CogVLM2 模型。",
  "A caption is a text file with the picture's name: photo.jpg and photo.txt.":
    "说明文字是与图片同名的文本文件：photo.jpg 和 photo.txt。",
  "A context of {context} tokens is not possible; the model supports at most {most}.":
    "上下文不能是 {context} 个 token；模型最多支持 {most} 个。",
  "A context of {context} tokens would fit: --context {context}.":
    "{context} 个 token 的上下文放得下：--context {context}。",
  "A device_map that places single modules can't be used: {places}.":
    "不能使用逐个指定模块位置的 device_map：{places}。",
  "A message between this program and the engine's process can't be read: {why}.":
    "无法读取本程序与引擎进程之间的消息：{why}。",
  "A message of the engine's process was cut off.":
    "引擎进程的一条消息不完整。",
  "A picture has the shape [height, width, 3] or [3, height, width].":
    "图片的形状是 [height, width, 3] 或 [3, height, width]。",
  "A quote inside of a quoted cell must be doubled.":
    "带引号的单元格内部的引号必须写两次。",
  "A stop text must not be empty.":
    "停止文本不能为空。",
  "A weight is infinite or not a number, so this matrix can't be rounded to 4 bits.":
    "有权重是无穷大或不是数，这个矩阵无法舍入为 4 位。",
  "Activations of 8 bits need a CPU and this program's C kernels.":
    "8 位激活值需要 CPU 和本程序的 C 内核。",
  "Add --device cpu, or leave --measure out.":
    "请加上 --device cpu，或去掉 --measure。",
  "Add one with --api-key-file, or use --host 127.0.0.1.":
    "请用 --api-key-file 给出一个，或继续使用 --host 127.0.0.1。",
  "After step {step}, numbers of {name} are not finite.":
    "第 {step} 步之后，{name} 中有非有限的数值。",
  "All pictures are held out by {file}, so there is nothing to learn from.":
    "{file} 留出了所有图片，因此没有可学习的内容。",
  "All {count} answers are held out, so there is nothing to learn from.":
    "全部 {count} 个回答都被留出，因此没有可学习的内容。",
  "An adapter can't be added to a loaded model: it counts in the memory plan.":
    "不能向已加载的模型添加适配器：它要计入内存规划。",
  "An adapter can't be called {name!r}: that is the model without an adapter.":
    "适配器不能叫 {name!r}：这个名称表示不带适配器的模型。",
  "An adapter is a folder with {name}.":
    "适配器是一个含有 {name} 的文件夹。",
  "An adapter of a server can't be called {name!r}: that is the model's own tag in Ollama's API.":
    "服务器的适配器不能叫 {name!r}：在 Ollama 的 API 中，这是模型自身的标签。",
  "An answer starts after about {wait}.":
    "约 {wait} 后开始回答。",
  "An array of the shape {shape} is not a picture.":
    "形状为 {shape} 的数组不是图片。",
  "Another {command} is writing its answers to {folder}.":
    "另一个 {command} 正在向 {folder} 写入回答。",
  "Answers are the same with every plan. --kv and --activations can change them.":
    "任何计划下回答都相同。--kv 和 --activations 可能会改变回答。",
  "Answers in JSON need the package llguidance, which is not installed.":
    "JSON 回答需要 llguidance 包，但它没有安装。",
  "Answers may be wrong.":
    "回答可能不正确。",
  "Apple's CgBI extension":
    "苹果的 CgBI 扩展",
  "Ask a new question; the oldest turns are then left out.":
    "请提一个新问题；届时会略去最早的几轮。",
  "Ask about each picture in a separate conversation, or combine them into one.":
    "请在不同的对话中询问每张图片，或把它们合成一张。",
  "Ask without json_object.":
    "请不要使用 json_object。",
  "Available GPUs: {names}.":
    "可用的 GPU：{names}。",
  "Check the name of the file.":
    "请检查文件名。",
  "Check the spelling of the path.":
    "请检查路径的拼写。",
  "Choose a --port of 1024 or above: the system reserves those below.":
    "请选择 1024 或更大的 --port：更小的端口由系统保留。",
  "Choose a page from 1 to {pages}.":
    "请选择 1 到 {pages} 之间的页码。",
  "Choose a short name without a slash, as in --adapter mine=FOLDER":
    "请使用不含斜杠的短名称，例如 --adapter mine=文件夹",
  "Choose a smaller --held-out, or 0 to hold out none.":
    "请减小 --held-out，或设为 0 表示不留出。",
  "Choose an address of this computer with --host, such as 127.0.0.1.":
    "请用 --host 指定这台电脑的一个地址，例如 127.0.0.1。",
  "Choose another --port; 0 picks a free one.":
    "请给出其他 --port；0 表示任意空闲端口。",
  "Choose another name, as in --adapter mine=FOLDER":
    "请换一个名称，例如 --adapter mine=文件夹",
  "Choose another name, as in --adapter mine={text}":
    "请换一个名称，例如 --adapter mine={text}",
  "Choose one file in it.":
    "请选择其中的一个文件。",
  "Choose page 1.":
    "请选择第 1 页。",
  "Choose the device at loading: from_pretrained(FOLDER, device_map=\"{other}\").":
    "请在加载时选择设备：from_pretrained(FOLDER, device_map=\"{other}\")。",
  "Choose the folder that contains config.json and the .safetensors files, or copy config.json from where the weights came from.":
    "请选择包含 config.json 和 .safetensors 文件的文件夹，或从权重的来源处复制 config.json。",
  "Choose the folder that contains config.json and the .safetensors files.":
    "请选择包含 config.json 和 .safetensors 文件的文件夹。",
  "Choose the number type at loading: from_pretrained(FOLDER, dtype={other}).":
    "请在加载时选择数值类型：from_pretrained(FOLDER, dtype={other})。",
  "Choose with --labels en, zh or both.":
    "请用 --labels en、zh 或 both 选择。",
  "Close other programs and try again.":
    "请关闭其他程序后再试。",
  "Close other programs, allow more memory, or use a smaller --max-tokens or --rank.":
    "请关闭其他程序、允许使用更多内存，或使用更小的 --max-tokens 或 --rank。",
  "Close other programs, allow more memory, or use another device.":
    "请关闭其他程序，允许使用更多内存，或使用其他设备。",
  "Close other programs, or plan with a shorter --context.":
    "请关闭其他程序，或用较短的 --context。",
  "Close other programs, or use a smaller --rank or --max-tokens.":
    "请关闭其他程序，或使用更小的 --rank 或 --max-tokens。",
  "CogVLM2 Lite can't load a model with {param}.":
    "CogVLM2 Lite 无法用 {param} 加载模型。",
  "CogVLM2 Lite runs cogvlm2-llama3-chat-19B and cogvlm2-llama3-chinese-chat-19B.":
    "CogVLM2 Lite 运行 cogvlm2-llama3-chat-19B 和 cogvlm2-llama3-chinese-chat-19B。",
  "CogVLM2 Lite runs cogvlm2-llama3-chat-19B, cogvlm2-llama3-chinese-chat-19B and models fine-tuned from them.":
    "CogVLM2 Lite 可运行 cogvlm2-llama3-chat-19B、cogvlm2-llama3-chinese-chat-19B 以及由它们微调的模型。",
  "Continue or repeat its download.":
    "请继续或重新下载。",
  "Continue the download with the same program until it has ended, then try again.":
    "请用同一程序继续下载，直到完成后再试。",
  "Continue the download with the same program until {mark} disappears. The size of the file says nothing, because its space was reserved at the beginning.":
    "请用同一程序继续下载，直到 {mark} 消失。文件大小不能说明问题，因为空间在开始时就已预留。",
  "Convert it to plain LoRA with peft: save_pretrained(..., path_initial_model_for_weight_conversion=...).":
    "请用 peft 把它转换为普通的 LoRA：save_pretrained(..., path_initial_model_for_weight_conversion=...)。",
  "Copy or download {index} from where the weights came from.":
    "请从权重的来源复制或下载 {index}。",
  "Copy that folder.":
    "请复制该文件夹。",
  "Copy the adapter again.":
    "请重新复制适配器。",
  "Copy the file itself into the folder.":
    "请把文件本身复制到该文件夹。",
  "Copy tokenizer.json from the original checkpoint into the folder.":
    "请从原始模型中把 tokenizer.json 复制到该文件夹。",
  "Copy {file} from the original checkpoint into the folder.":
    "请从原始模型中把 {file} 复制到该文件夹。",
  "Copy {file} from where the weights came from.":
    "请从权重的来源复制 {file}。",
  "Copy {name} again from the source.":
    "请从来源重新复制 {name}。",
  "Correct it. A common reason is a comma after the last entry.":
    "请改正。常见原因是最后一项后面多了逗号。",
  "Correct them, or use --allow-skipped to train without them.":
    "请修正它们，或用 --allow-skipped 在没有它们的情况下训练。",
  "Decode":
    "生成回答",
  "Decoding runs entirely {place}, {speed}.":
    "生成回答完全{place}进行，{speed}。",
  "Did you mean {folder}?":
    "是不是想用 {folder}？",
  "Did you mean {name}?":
    "您是指 {name} 吗？",
  "Did you mean {value}GiB?":
    "您是指 {value}GiB 吗？",
  "Download it with `hf download {name}`, or pass the path of its folder.":
    "请用 `hf download {name}` 下载，或传入其文件夹的路径。",
  "Download the file itself, not the page about it. If the site asks, sign in and accept the licence first.":
    "请下载文件本身，而不是介绍它的网页。如果网站要求，请先登录并接受许可协议。",
  "Download the folder again, or copy the missing files into it.":
    "请重新下载该文件夹，或把缺少的文件复制进去。",
  "Embedding rows are read from a memory-mapped file: up to {size} more of cached pages.":
    "词嵌入从映射文件中读取：另有最多 {size} 的缓存页。",
  "Encode":
    "看图",
  "Encoded pictures are kept in up to {size} of RAM, {each} each.":
    "询问过的图片会保留在最多 {size} 的内存中，每张 {each}。",
  "Every pixel of the picture is transparent, so there is nothing to see.":
    "图片的所有像素都是透明的,因此看不到任何内容。",
  "Everything stays {place}, {speed}.":
    "全部保留{place}，{speed}。",
  "Expected times are calculated {source}. A question is assumed to have {count} tokens.":
    "预计时间由计算得出，{source}。一个问题按 {count} 个 token 计。",
  "For each new picture {transfer}, which takes about {wait} more.":
    "每张新图片有 {transfer}，多用约 {wait}。",
  "For each new picture {transfer}, while the computation runs.":
    "每张新图片有 {transfer}，与计算同时进行。",
  "For each token {transfer}, so {speed}.":
    "每个 token 有 {transfer}，因此{speed}。",
  "Free some space or make its folder writable, then run the same command to resume.":
    "请腾出空间或使其所在文件夹可写，然后运行同一命令继续。",
  "Free some space, then run the same command again: it continues from the last saved state, of step {step}.":
    "请腾出一些空间，然后再次运行同一命令：它会从最后保存的状态（第 {step} 步）继续。",
  "Get the file again or save it again from the program that made it.":
    "请重新获取该文件，或从制作它的程序再保存一次。",
  "Get the safetensors version of the model, with its config.json.":
    "请获取模型的 safetensors 版本及其 config.json。",
  "Get the safetensors version of the model. CogVLM2 Lite never opens pickle files.":
    "请获取模型的 safetensors 版本。CogVLM2 Lite 从不打开 pickle 文件。",
  "Give a number from {least} (a picture and a few questions) to {most}.":
    "请给出 {least}（一张图片和几个问题）到 {most} 之间的数。",
  "Give a path, the bytes of a picture file, or a PIL image.":
    "请给出路径、图片文件的字节或 PIL 图像。",
  "Give one size for all GPUs, or one for each.":
    "请给出一个适用于所有 GPU 的大小，或每个 GPU 各一个。",
  "If it is the same file, rename {other} to {name}.":
    "如果是同一个文件，请将 {other} 改名为 {name}。",
  "If the model folder was changed while it was in use, load it again. If not, please report this.":
    "如果模型文件夹在使用期间被更改，请重新加载。否则请报告此问题。",
  "Index and files are of different versions. Download the folder again.":
    "索引与文件版本不同。请重新下载该文件夹。",
  "Install it with: pip install \"cogvlm2-lite[server]\"":
    "用以下命令安装：pip install \"cogvlm2-lite[server]\"",
  "Internal server error; the server's log has the details.":
    "服务器内部错误；详情见服务器日志。",
  "It can be started again.":
    "可以重新启动它。",
  "It is a PDF file. Extract its text first, for example with pdftotext.":
    "这是一个 PDF 文件。请先提取其中的文本，例如使用 pdftotext。",
  "It is a picture ({kind}). Use the text that an OCR program wrote.":
    "这是一张图片（{kind}）。请使用 OCR 程序写出的文本。",
  "It is being restarted.":
    "正在重新启动它。",
  "Its download or copy ended early. Continue it, or download the file again.":
    "下载或复制提前结束。请继续下载，或重新下载该文件。",
  "Its first line must name them, for example image,question,answer.":
    "第一行必须写出列名，例如 image,question,answer。",
  "Its own options are {options}, device and dtype.":
    "它自己的选项有 {options}、device 和 dtype。",
  "Its snapshots have no complete model. Run the download again until it ends.":
    "其 snapshots 中没有完整的模型。请重新运行下载，直到完成。",
  "Its training failed. Use an earlier state of it.":
    "它的训练失败了。请使用较早的状态。",
  "Keep one of the two models in this folder.":
    "请在此文件夹中只保留两个模型之一。",
  "Leave --device out, or limit the CPU with --ram.":
    "请去掉 --device，或用 --ram 限制 CPU。",
  "Leave --offload at auto: the answers are the same, but slower.":
    "请让 --offload 保持 auto：回答相同，只是更慢。",
  "Leave it out.":
    "请去掉它。",
  "Leave out --activations, or use --device cpu. `cogvlm2-lite doctor` shows the kernels.":
    "请去掉 --activations，或使用 --device cpu。`cogvlm2-lite doctor` 会显示内核。",
  "Load it with the model: from_pretrained(FOLDER, adapter=\"ADAPTER\").":
    "请在加载模型时一并加载：from_pretrained(FOLDER, adapter=\"ADAPTER\")。",
  "Load one first.":
    "请先加载一个模型。",
  "Load one with --adapter FOLDER.":
    "请用 --adapter 文件夹 加载一个。",
  "Load one with from_pretrained(FOLDER).":
    "请用 from_pretrained(FOLDER) 加载。",
  "Load the model in float32.":
    "请以 float32 加载模型。",
  "Load the model with a longer context, or generate fewer tokens.":
    "请用更长的上下文加载模型，或少生成一些 token。",
  "Make a 4-bit folder once with `cogvlm2-lite quantize`, and load that folder.":
    "请先用 `cogvlm2-lite quantize` 制作一次 4 位文件夹，再加载该文件夹。",
  "Make input_ids and pixel_values with the processor.":
    "请用处理器生成 input_ids 和 pixel_values。",
  "Make it writable, or choose another folder for the answers.":
    "请将其设为可写，或为回答选择另一个文件夹。",
  "Make one: python -c \"import secrets; print(secrets.token_urlsafe(32))\"":
    "生成一个：python -c \"import secrets; print(secrets.token_urlsafe(32))\"",
  "Memory ran out, and no plan needs less than {size}.":
    "内存用尽，而任何计划都至少需要 {size}。",
  "Memory ran out. {size} more of the weights now come from RAM or disk for each use; the answer continues more slowly.":
    "内存用尽。现在每次使用时另有 {size} 权重来自内存或磁盘；回答会继续，但更慢。",
  "Memory ran out. {size} more of the weights now come from RAM or disk for each use; the step starts again.":
    "内存用尽。现在每次使用时另有 {size} 权重来自内存或磁盘；这一步会重新开始。",
  "Memory suffices for one conversation at once, not for {wanted}: each takes {size} of key/value cache. A shorter --context makes them smaller.":
    "内存只够同时进行一个对话，不够 {wanted} 个：每个需要 {size} 键值缓存。较短的 --context 会使其变小。",
  "Memory suffices for {count} conversations at once, not for {wanted}: each takes {size} of key/value cache. A shorter --context makes them smaller.":
    "内存只够同时进行 {count} 个对话，不够 {wanted} 个：每个需要 {size} 键值缓存。较短的 --context 会使其变小。",
  "Merge it into the model that it was trained on, and use the merged folder.":
    "请将它合并到训练时所用的模型中，并使用合并后的文件夹。",
  "Messages may have parts of the types text and image, not {kind!r}.":
    "消息只能包含 text 和 image 类型的部分，不能是 {kind!r}。",
  "More epochs can be added to a run with --schedule constant. Otherwise use the same number, another folder, or --restart to start again.":
    "使用 --schedule constant 的训练可以增加轮数。否则请使用相同的轮数、另一个文件夹，或用 --restart 重新开始。",
  "Move it away, or choose another folder with --output.":
    "请把它移走，或用 --output 指定其他文件夹。",
  "Name them: --adapter one=FOLDER --adapter two=FOLDER. Adapters to which you give the same name are added up.":
    "请为它们命名：--adapter one=文件夹 --adapter two=文件夹。您给予相同名称的适配器会相加。",
  "No GPU is used: {why}.":
    "没有使用 GPU：{why}。",
  "No RAM is left for earlier pictures ({each} each): a question about one encodes it again.":
    "没有剩余内存来保留以前的图片（每张 {each}）：再次询问时会重新读取。",
  "No model is loaded.":
    "没有加载模型。",
  "No {kind} GPU can be used: {why}.":
    "没有可用的 {kind} GPU：{why}。",
  "No {maker} GPU can be used: {why}.":
    "没有可用的 {maker} GPU：{why}。",
  "Not every GPU is used: {why}.":
    "没有使用全部 GPU：{why}。",
  "On {host} other machines could use the model, but there is no API key.":
    "在 {host} 上其他电脑也能使用模型，但没有给出 API 密钥。",
  "Only 4-bit weights in the layout of transformers with bitsandbytes can be read.":
    "只能读取 transformers 与 bitsandbytes 布局的 4 位权重。",
  "Only plain LoRA adapters are.":
    "只支持普通的 LoRA 适配器。",
  "Open a JPEG, PNG, WebP, BMP, GIF, TIFF or AVIF picture.":
    "请打开 JPEG、PNG、WebP、BMP、GIF、TIFF 或 AVIF 图片。",
  "Opening the picture's address took more than {seconds:g} s.":
    "打开图片地址用时超过 {seconds:g} 秒。",
  "Pages of other websites may not use this server.":
    "其他网站的页面不能使用此服务器。",
  "Pass a list with one picture, or a list of pictures, for each text.":
    "请为每段文本传入一张图片或一个图片列表。",
  "Pass fewer rows at a time, or load the model with a shorter context.":
    "请一次传入较少的行，或用较短的上下文加载模型。",
  "Picture {number}: {why}":
    "图片 {number}：{why}",
  "Pictures can't be assigned to texts (pictures: {count}, texts: {texts}).":
    "无法把图片分配给文本（图片：{count}，文本：{texts}）。",
  "Please report it with the log and the output of `cogvlm2-lite doctor`.":
    "请附上日志和 `cogvlm2-lite doctor` 的输出报告此问题。",
  "Prefill of text":
    "读入文字",
  "Prefill with picture":
    "读入图片和问题",
  "Rows need an answer, and a picture that can be opened.":
    "每行需要一个回答，以及一张可以打开的图片。",
  "Run the same command again: it continues from the last saved state, of step {saved}. `cogvlm2-lite doctor` shows which GPUs still respond.":
    "请再次运行同一命令：它会从最后保存的状态（第 {saved} 步）继续。`cogvlm2-lite doctor` 会显示哪些 GPU 仍有响应。",
  "Run the same command again; saved answers are kept.":
    "请再次运行同一命令；已保存的回答会保留。",
  "Run the same download again: it fetches only what is missing.":
    "请重新运行同一下载：它只会获取缺少的部分。",
  "Run the same quantize command again: it continues where it stopped.":
    "请重新运行同一 quantize 命令：它会从中断处继续。",
  "Run: pip install \"cogvlm2-lite[heic]\", or save it as JPEG or PNG.":
    "请运行:pip install \"cogvlm2-lite[heic]\",或者将其另存为 JPEG 或 PNG。",
  "Run: pip install --upgrade pillow, or save it as JPEG or PNG.":
    "请运行:pip install --upgrade pillow,或者将其另存为 JPEG 或 PNG。",
  "Save a smaller copy: the model sees 1344 by 1344 pixels.":
    "请存一份较小的副本：模型只看 1344 x 1344 像素。",
  "Save it again as PNG or JPEG with another program.":
    "请用其他程序重新存为 PNG 或 JPEG。",
  "Save it again with the encoding UTF-8.":
    "请用 UTF-8 编码重新保存。",
  "Save it as JPEG or PNG with another program, then open that file.":
    "请用其他程序存为 JPEG 或 PNG，再打开那个文件。",
  "Save it as plain text in UTF-8.":
    "请将其另存为 UTF-8 编码的纯文本。",
  "Save it with 8 or 16 bits per color.":
    "请以每色 8 位或 16 位保存。",
  "Save the picture to a file and use the path of that file.":
    "请把图片存为文件，并使用该文件的路径。",
  "Set the environment variable {variable} to a folder that can be written.":
    "请将环境变量 {variable} 设为可写的文件夹。",
  "Shorten the prompt, or load the model with a longer context.":
    "请缩短提示，或用更长的上下文加载模型。",
  "Shorten the question, or plan for a longer context (at most {most} tokens).":
    "请缩短问题，或使用更长的上下文（最多 {most} 个 token）。",
  "Shorten the question.":
    "请缩短问题。",
  "Simplify the schema, or use json_object and name the fields in the question.":
    "请简化该 Schema，或使用 json_object 并在问题中写明字段。",
  "Start again with --restart.":
    "请用 --restart 重新开始。",
  "Start again, with --device cpu if it happens again; `cogvlm2-lite doctor` shows which GPUs still respond.":
    "请重新启动；如果再次发生，请加上 --device cpu。`cogvlm2-lite doctor` 会显示哪些 GPU 仍有响应。",
  "Start the program again; both must be of the same version.":
    "请重新启动程序；两者的版本必须相同。",
  "Step {step} changed nothing: its loss or gradient is not a number, also in float32. Its rows: {rows}.":
    "第 {step} 步没有改变任何数值：它的损失或梯度不是数值，用 float32 重算也一样。其数据行：{rows}。",
  "The API key is missing or wrong.":
    "API 密钥缺失或错误。",
  "The API key must have at least 16 characters, all of them printable ASCII.":
    "API 密钥必须有 16 个或更多的普通字母、数字或符号。",
  "The Content-Type must be application/json.":
    "Content-Type 必须是 application/json。",
  "The GPU can't compute this model: {why}.":
    "GPU 无法计算此模型：{why}。",
  "The GPU stopped working after step {step}: {why}.":
    "GPU 在第 {step} 步之后停止工作：{why}。",
  "The GPU stopped working during the computation: {why}.":
    "GPU 在计算过程中停止工作：{why}。",
  "The GPU {device} ({name}) does not compute {dtype}: it would emulate it, several times slower.":
    "GPU {device}（{name}）不支持 {dtype} 运算：只能模拟，速度会慢好几倍。",
  "The GPU {device} can't be used ({why}).":
    "无法使用 GPU {device}（{why}）。",
  "The JSON of the request has more than {most} values. Send fewer.":
    "请求的 JSON 超过 {most} 个值。请减少数量。",
  "The JSON of the request is nested too deeply: more than {most} levels.":
    "请求的 JSON 嵌套过深：超过 {most} 层。",
  "The JSON schema can't be used: {why}.":
    "无法使用这个 JSON Schema：{why}。",
  "The adapter acts behind the picture, with a held-out loss of {own}. In peft, where it acts on all tokens, the loss is {loss}.":
    "适配器只作用于图片之后，留出数据的损失为 {own}。在 peft 中它作用于所有词元，损失为 {loss}。",
  "The adapter could not be saved in {folder}: {why}.":
    "无法将适配器保存到 {folder}：{why}。",
  "The adapter was made for another model, or trains more than linear layers.":
    "这个适配器是为另一个模型制作的，或者训练了线性层以外的部分。",
  "The adapter was made for another model.":
    "这个适配器是为另一个模型制作的。",
  "The adapter {name} changes nothing: it is zero.":
    "适配器 {name} 不改变任何结果：它全为零。",
  "The adapter {name} does not say for which model it was made.":
    "适配器 {name} 没有说明它是为哪个模型制作的。",
  "The adapter {name} was trained on the {theirs} weights of this model, and has learnt their rounding errors. These are its {ours} weights. On the demo model, 98.7 % of an adapter's new answers were right with the NF4 weights that it was trained on, and 94.7 % with the 16-bit ones.":
    "适配器 {name} 是在此模型的 {theirs} 权重上训练的，也学到了它们的舍入误差；现在用的是 {ours} 权重。在演示模型上，适配器的新回答在训练所用的 NF4 权重上有 98.7 % 正确，在 16 位权重上有 94.7 % 正确。",
  "The adapter {name} was trained with another tokenizer.json. If its tokens are other ones, the answers are wrong.":
    "适配器 {name} 训练时用的是另一个 tokenizer.json。如果其中的 token 不同，回答会是错的。",
  "The adapters {name} can't be added up: some act on all tokens, and some only behind the picture.":
    "适配器 {name} 不能相加：有的作用于所有词元，有的只作用于图片之后的词元。",
  "The answer began to repeat itself and was stopped.":
    "回答开始重复自身，已被停止。",
  "The answer can't be kept JSON any longer: {why}.":
    "无法让回答继续保持为 JSON：{why}。",
  "The answer so far is not the beginning of the JSON that it must be.":
    "已有的回答不是所要求 JSON 的开头。",
  "The answer to a question about a new picture starts after about {wait}.":
    "关于新图片的问题，约 {wait} 后开始回答。",
  "The answers are learnt by heart: their loss is {loss}, while the held-out loss rises. The adapter of step {step} is kept. Fewer --epochs or more data help.":
    "模型在死记答案：其损失为 {loss}，而留出数据的损失在上升。已保留第 {step} 步的适配器。减少 --epochs 或增加数据会有帮助。",
  "The array is not a picture: {why}.":
    "该数组不是图片：{why}。",
  "The body is compressed ({name}). Send it uncompressed.":
    "请求正文经过压缩（{name}）。请发送未压缩的正文。",
  "The body of the request is not JSON: see line {line}, column {column}.":
    "请求正文不是 JSON：见第 {line} 行第 {column} 列。",
  "The body of the request is not UTF-8.":
    "请求正文不是 UTF-8。",
  "The body of the request must be a JSON object.":
    "请求的正文必须是 JSON 对象。",
  "The cache folder {folder} can't be written: {why}.":
    "无法写入缓存文件夹 {folder}：{why}。",
  "The cache has {expected} rows, and input_ids has {count}.":
    "缓存有 {expected} 行，而 input_ids 有 {count} 行。",
  "The certificate of the picture's address is not valid.":
    "图片地址的证书无效。",
  "The checkpoint is damaged. Copy or download it again.":
    "模型文件已损坏。请重新复制或下载。",
  "The color profile of the picture is damaged and was ignored.":
    "图片的颜色配置文件已损坏,已被忽略。",
  "The context is full, so the answer ends here.":
    "上下文已满，回答到此结束。",
  "The context is full: the answer has {count} tokens and can't continue.":
    "上下文已满：回答已有 {count} 个 token，无法继续。",
  "The context of {context} tokens is full.":
    "{context} 个 token 的上下文已满。",
  "The conversation has {count} pictures, and the model takes one: the answer is about the newest.":
    "对话中有 {count} 张图片，而模型只接受一张：回答针对最新的一张。",
  "The conversation has {count} pictures, and the model takes one: the newest {most} are on one sheet, with the numbers 1 to {most}.":
    "对话中有 {count} 张图片，而模型只接受一张：最新的 {most} 张被拼在一张图上，编号为 1 到 {most}。",
  "The conversation has {count} pictures, and the model takes one: they are on one sheet, with the numbers 1 to {count}.":
    "对话中有 {count} 张图片，而模型只接受一张：它们被拼在一张图上，编号为 1 到 {count}。",
  "The conversation is too long for it by its oldest turns ({count}). Leave them out, or send {option} to let the server do so.":
    "对话太长，最早的几轮（{count}）超出了上下文。请去掉它们，或发送 {option} 让服务器来做。",
  "The download of the file was not complete, or the disk lost a part. Download or copy it again.":
    "文件没有下载完整，或者磁盘丢失了一部分。请重新下载或复制。",
  "The download of {file} has not finished: {mark} is next to it.":
    "{file} 的下载尚未完成：旁边还有 {mark}。",
  "The draft text {file} can't be read: {why}.":
    "无法读取草稿文本 {file}：{why}。",
  "The draft text {file} has more than {most}.":
    "草稿文本 {file} 超过 {most}。",
  "The draft text {file} is not a text file in UTF-8.":
    "草稿文本 {file} 不是 UTF-8 编码的文本文件。",
  "The engine can't answer now.":
    "引擎现在无法回答。",
  "The engine has an internal error; the log of the program has the details.":
    "引擎出现内部错误；详情见程序日志。",
  "The engine has no model loaded.":
    "引擎没有加载模型。",
  "The engine has stopped.":
    "引擎已停止。",
  "The engine is already started.":
    "引擎已经启动。",
  "The engine is loading the model.":
    "引擎正在加载模型。",
  "The engine is not started.":
    "引擎没有启动。",
  "The engine stopped responding (no message for {seconds} s) and was ended.":
    "引擎停止响应（{seconds} 秒没有消息），已被结束。",
  "The engine stopped responding (one step took more than {seconds} s) and was ended.":
    "引擎停止响应（一个步骤用时超过 {seconds} 秒），已被结束。",
  "The engine was stopped.":
    "引擎已停止。",
  "The engine's process crashed ({signal}).":
    "引擎进程崩溃（{signal}）。",
  "The engine's process ended by itself with exit code {code}.":
    "引擎进程自行结束，退出码 {code}。",
  "The engine's process was killed ({signal}). Most often the system does this when memory runs out.":
    "引擎进程被终止（{signal}）。通常是系统在内存耗尽时这样做。",
  "The file at the picture's address was cut off.":
    "图片地址处的文件不完整。",
  "The file ends early or is damaged: less than 1% is missing.":
    "文件提前结束或已损坏:缺少不到 1%。",
  "The file ends early or is damaged: {percent}% of the picture is missing.":
    "文件提前结束或已损坏:图片缺少 {percent}%。",
  "The file ends early: details of the picture may be missing.":
    "文件提前结束:图片的细节可能缺失。",
  "The file is damaged or was not downloaded completely. Copy or download it again.":
    "文件已损坏或没有下载完整。请重新复制或下载。",
  "The file is damaged, or it is not a safetensors file.":
    "文件已损坏，或不是 safetensors 文件。",
  "The file is damaged: parts of the picture may be wrong.":
    "文件已损坏:图片的某些部分可能不正确。",
  "The file is not complete, or it was changed. Copy or download it again.":
    "文件不完整或已被改动。请重新复制或下载。",
  "The file system of {folder} has no locks. Start no second {command} there before this one has ended.":
    "{folder} 所在的文件系统不支持文件锁。请在本次 {command} 结束之前，不要在该文件夹中启动另一个。",
  "The first answer also reads the weights from disk and packs them, about {wait}.":
    "第一个回答还要从磁盘读取并打包权重，约 {wait}。",
  "The first answer also reads the weights from disk, about {wait}.":
    "第一个回答还要从磁盘读取权重，约 {wait}。",
  "The first frame of the animation shows nothing; this is frame {page} of {pages}, which shows most.":
    "动画的第一帧没有内容;这是共 {pages} 帧中内容最多的第 {page} 帧。",
  "The folder has int8 tensors ({count}: {names}), but no {file}, which says how to read them.":
    "文件夹中有 int8 张量（{count} 个：{names}），但没有说明如何读取它们的 {file}。",
  "The folder has tensors that this CogVLM2 model does not have: {count} ({names}).":
    "文件夹中有这个 CogVLM2 模型没有的张量：{count} 个（{names}）。",
  "The folder lacks tensors: {missing} of {count} ({names}).":
    "文件夹缺少张量：{count} 个中的 {missing} 个（{names}）。",
  "The folder mixes files of two models. Download it again into an empty one.":
    "该文件夹混有两个模型的文件。请重新下载到一个空文件夹。",
  "The header of {file} claims to be {count} bytes long, but only {size} follow.":
    "{file} 声明文件头有 {count} 字节，但后面只有 {size} 字节。",
  "The header of {file} claims to be {size} long; at most {most} is allowed.":
    "{file} 声明文件头有 {size}；最多允许 {most}。",
  "The held-out loss has risen at {count} evaluations. The adapter of step {step} is kept; --patience stops such a run.":
    "留出数据的损失已在 {count} 次评估中上升。已保留第 {step} 步的适配器；--patience 可让这样的训练停止。",
  "The held-out loss is {after} with the adapter and {before} without it, so it does not help. Look at the data, or use another --lr.":
    "留出数据的损失在使用适配器时为 {after}，不使用时为 {before}，因此它没有帮助。请检查数据，或使用其他 --lr。",
  "The held-out loss was not lower at {count} evaluations, so the run stops. The adapter is that of step {step}.":
    "留出数据的损失在 {count} 次评估中没有降低，因此训练停止。适配器为第 {step} 步的结果。",
  "The held-out questions could not be answered: {why} The training continues.":
    "无法回答留出的问题：{why} 训练继续进行。",
  "The host name of the picture's address is not valid.":
    "图片地址的主机名无法用 DNS 表示。",
  "The known cards are {names}. For others state their memory: --vram 8GiB.":
    "已知的显卡有 {names}。其他显卡请给出显存：--vram 8GiB。",
  "The loss has been above {loss} for {steps} steps, and was about {before} before. A lower --lr may help.":
    "损失已连续 {steps} 步高于 {loss}，之前约为 {before}。降低 --lr 可能有帮助。",
  "The loss or gradient was not a number in {count} steps, also in float32; the last was step {step} with the rows {rows}.":
    "有 {count} 步的损失或梯度不是数值，用 float32 重算也一样；最后是第 {step} 步，数据行为 {rows}。",
  "The manifest is damaged. Copy it again, or run quantize again.":
    "清单文件已损坏。请重新复制，或重新运行 quantize。",
  "The matrices of {file} have different ranks.":
    "{file} 的矩阵的秩不同。",
  "The memory plan does not match the weights: {unit} has {filled} bytes, planned were {planned}.":
    "内存计划与权重不符：{unit} 有 {filled} 字节，计划为 {planned} 字节。",
  "The model can't answer; the server's log has the reason.":
    "模型无法回答；原因见服务器日志。",
  "The model can't be saved from here: its weights are unchanged in {folder}.":
    "无法从这里保存模型：其权重原样保存在 {folder} 中。",
  "The model can't be trained through transformers: it has no modules.":
    "不能通过 transformers 训练此模型：它没有模块。",
  "The model computes in {kind} and can't be converted to {other}.":
    "模型以 {kind} 计算，不能转换为 {other}。",
  "The model does not return attentions or hidden states.":
    "模型不返回注意力或隐藏状态。",
  "The model is answering another question.":
    "模型正在回答另一个问题。",
  "The model is answering other questions.":
    "模型正在回答其他问题。",
  "The model is loading.":
    "正在加载模型。",
  "The model is not loaded.":
    "模型没有加载。",
  "The model reads pictures and text, no videos and no audio.":
    "模型读取图片和文本，不读取视频和音频。",
  "The model runs on {device} and can't be moved to {other}.":
    "模型运行在 {device} 上，不能移到 {other}。",
  "The model takes input_ids, and no inputs_embeds.":
    "模型只接受 input_ids，不接受 inputs_embeds。",
  "The model takes no {names}; it derives positions from input_ids.":
    "模型不接受 {names}；它由 input_ids 推导位置。",
  "The model takes only a cache that it returned, not {kind}.":
    "模型只接受由它自己返回的缓存，不接受 {kind}。",
  "The model's vocabulary has no token with which the answer could continue as JSON.":
    "模型的词表中没有能让回答继续成为 JSON 的 token。",
  "The number {value} in the request is too large.":
    "请求中的数字 {value} 太大。",
  "The numbers in names such as {names} are ignored: each row counts once.":
    "{names} 等名称中的数字会被忽略：每一行只计一次。",
  "The numbers of this model are too large for float16, so it computes in float32 from now on. This is slower and needs more memory.":
    "此模型的数值超出了 float16 的范围，因此从现在起用 float32 计算。这会更慢，并需要更多内存。",
  "The numbers of this model are too large for float16.":
    "此模型的数值超出了 float16 的范围。",
  "The picture can't be read: its decoder crashed.":
    "无法读取图片：解码程序崩溃了。",
  "The picture has a high dynamic range; its brightness is an approximation.":
    "图片是高动态范围图片;其亮度只是近似值。",
  "The picture has light parts on a transparent ground; it is shown on grey.":
    "图片在透明背景上有浅色部分;已显示在灰色背景上。",
  "The picture has more than {most}.":
    "图片超过 {most}。",
  "The picture has one color only, so there is nothing to see.":
    "图片只有一种颜色,因此看不到任何内容。",
  "The picture has {count} bytes, which are not {width} by {height} pixels.":
    "图片有 {count} 个字节，与 {width} × {height} 像素不符。",
  "The picture has {count} million pixels; it was read at half its width and height.":
    "图片有 {count} 百万像素;已按一半的宽度和高度读取。",
  "The picture has {size}, more than {most}.":
    "图片大小为 {size}，超过 {most}。",
  "The picture is a web address, which this program does not open.":
    "图片是网址，本程序不打开网址。",
  "The picture is light on a transparent ground; it is shown on black.":
    "图片是透明背景上的浅色内容;已显示在黑色背景上。",
  "The picture is {ratio} times as tall as wide. The model sees it squashed to a square, so small text may be unreadable.":
    "图片的高度是宽度的 {ratio} 倍。模型看到的是压成正方形的图片,小字可能无法辨认。",
  "The picture is {ratio} times as wide as tall. The model sees it squashed to a square, so small text may be unreadable.":
    "图片的宽度是高度的 {ratio} 倍。模型看到的是压成正方形的图片,小字可能无法辨认。",
  "The picture took too long to read.":
    "读取图片用时过长。",
  "The picture was computed with activations of 8 bits.":
    "计算这张图片时使用了 8 位激活值。",
  "The picture {url} can't be downloaded: {why}.":
    "无法下载图片 {url}：{why}。",
  "The picture's address can't be opened.":
    "无法打开图片地址。",
  "The picture's address is not a public address.":
    "图片地址不是公共地址。",
  "The picture's address is not valid.":
    "图片地址无效。",
  "The picture's address must begin with http:// or https:// and a name.":
    "图片地址必须以 http:// 或 https:// 加主机名开头。",
  "The picture's address must not contain a user name or a password.":
    "图片地址不能包含用户名或密码。",
  "The picture's address redirects from https to http.":
    "图片地址从 https 重定向到 http。",
  "The picture's address redirects more than {most} times.":
    "图片地址的重定向超过 {most} 次。",
  "The picture's address redirects to an invalid address.":
    "图片地址重定向到无效的地址。",
  "The picture's address redirects without a target.":
    "图片地址的重定向没有目标。",
  "The picture's address returns a compressed file.":
    "图片地址返回的是压缩文件。",
  "The picture's address returns no picture but HTTP status {status}.":
    "图片地址返回的不是图片，而是 HTTP 状态 {status}。",
  "The picture's base64 text is not valid: {why}.":
    "图片的 base64 文本无效：{why}。",
  "The pictures have {size} or more together, more than {most}.":
    "这些图片合计至少 {size}，超过 {most}。",
  "The prompt has places for {expected} image tokens, not for {count}.":
    "提示中有 {expected} 个图像 token 的位置，而不是 {count} 个。",
  "The prompt has {count} tokens; the context has room for {context}.":
    "提示有 {count} 个 token；上下文只能容纳 {context} 个。",
  "The question has {count} tokens and the picture {picture}; the context has room for {context}, and the answer needs some of them.":
    "问题有 {count} 个 token，图片有 {picture} 个；上下文只容纳 {context} 个，回答也要占一部分。",
  "The question has {count} tokens; the context has room for {context}, and the answer needs some of them.":
    "问题有 {count} 个 token；上下文只容纳 {context} 个，回答也要占一部分。",
  "The rates of the card {name!r} are not known.":
    "不知道显卡 {name!r} 的速率。",
  "The request has both Content-Length and Transfer-Encoding. Send one of them.":
    "请求同时带有 Content-Length 和 Transfer-Encoding。请只发送其中一个。",
  "The request has more than {most}.":
    "请求超过 {most}。",
  "The request has text that is not valid Unicode.":
    "请求中有无效的 Unicode 文本。",
  "The request has {value}, which is not a number in JSON.":
    "请求中有 {value}，它不是 JSON 中的数字。",
  "The request took more than {seconds:g} s.":
    "请求用时超过 {seconds:g} 秒。",
  "The request's header took more than {seconds:g} s.":
    "请求头在 {seconds:g} 秒内没有到齐。",
  "The samples have no labels, so there is nothing to train.":
    "这些样本没有标签，因此没有可训练的内容。",
  "The server can't listen on {host}, port {port}: {why}.":
    "服务器无法监听 {host} 的端口 {port}：{why}。",
  "The server is shutting down.":
    "服务器正在关闭。",
  "The sheet of pictures":
    "拼图",
  "The tensors of the adapter {name} were changed after it was trained.":
    "适配器 {name} 的张量在训练之后被修改过。",
  "The text has a place for a picture, but no picture was passed.":
    "文本中有图片的位置，但没有传入图片。",
  "The text has {count} characters, more than {most}: no context is that long.":
    "文本有 {count} 个字符，超过 {most}：没有这么长的上下文。",
  "The texts have more than {most} characters.":
    "文本超过 {most} 个字符。",
  "The two files do not belong together. Copy the adapter again.":
    "这两个文件不属于同一个适配器。请重新复制适配器。",
  "The waiting requests already use too much memory.":
    "等待中的请求已占用过多内存。",
  "The weight of an adapter must be between {least} and {most}, not {value}.":
    "适配器的权重必须在 {least} 到 {most} 之间，不能是 {value}。",
  "The whole model needs {least} of RAM, where {usable}, and --offload is never.":
    "整个模型需要 {least} 内存，{usable}，而 --offload 为 never。",
  "The whole model needs {least} on {device}, where {usable}, and --offload is never.":
    "整个模型在 {device} 上需要 {least}，{usable}，而 --offload 为 never。",
  "The {count} tensors of {file} end at byte {end}, but the file has {size} bytes.":
    "{file} 中的 {count} 个张量止于第 {end} 字节，而文件有 {size} 字节。",
  "The {name} kernels don't work here: {why}.":
    "{name} 计算核在这里无法工作：{why}。",
  "There is no GPU {device}.":
    "没有 GPU {device}。",
  "There is no adapter folder {folder}.":
    "没有适配器文件夹 {folder}。",
  "There is no adapter {name!r}.":
    "没有名为 {name!r} 的适配器。",
  "There is no file {file!r}.":
    "没有文件 {file!r}。",
  "There is no folder or file {file}.":
    "没有文件夹或文件 {file}。",
  "There is no folder {name!r}, and the Hugging Face cache does not have the model.":
    "没有文件夹 {name!r}，Hugging Face 缓存中也没有该模型。",
  "There is no home folder for this user, so there is no place for files of this program.":
    "当前用户没有主文件夹，因此本程序没有存放文件的位置。",
  "There is not enough memory to continue.":
    "内存不足，无法继续。",
  "They are empty: DeepSpeed with ZeRO 3 writes such files unless stage3_gather_16bit_weights_on_model_save is on. Save the adapter again.":
    "它们是空的：DeepSpeed 的 ZeRO 3 会写出这样的文件，除非打开 stage3_gather_16bit_weights_on_model_save。请重新保存适配器。",
  "They may change the results. Check that this is a CogVLM2 image model.":
    "它们可能改变结果。请确认这是 CogVLM2 图像模型。",
  "This computer has only {size} of RAM free now.":
    "这台电脑现在只有 {size} 空闲内存。",
  "This folder was written by another program or for another model.":
    "这个文件夹由其他程序写成，或属于另一个模型。",
  "This folder was written by another program.":
    "这个文件夹由其他程序写成。",
  "This index is damaged or was made to read other files. Don't use it.":
    "这个索引已损坏，或是为读取其他文件而制作的。请不要使用。",
  "This is another model, or its config.json does not belong to these weights.":
    "这是另一个模型，或者 config.json 与这些权重不匹配。",
  "This is frame 1 of {pages} of an animation.":
    "这是动画共 {pages} 帧中的第 1 帧。",
  "This is not a checkpoint that CogVLM2 Lite or transformers wrote.":
    "这不是 CogVLM2 Lite 或 transformers 写成的模型文件。",
  "This is page 1 of {pages}; the others were not read.":
    "这是共 {pages} 页中的第 1 页;其他页没有读取。",
  "This is picture {page} of {pages} in the file; the others were not read.":
    "这是文件中共 {pages} 张图片的第 {page} 张;其他图片没有读取。",
  "This is the folder of a model. An adapter is a folder of its own.":
    "这是模型的文件夹。适配器是单独的一个文件夹。",
  "This model does not support embeddings: it answers questions about pictures.":
    "此模型不支持嵌入向量：它回答关于图片的问题。",
  "This model's maximum context length is {context} tokens. {why}":
    "模型的上下文最多 {context} 个 token。{why}",
  "This page does not allow that method.":
    "此页面不允许该方法。",
  "This server does not answer under that host name.":
    "此服务器不以该主机名提供服务。",
  "This server has no {path}. OpenAI's API begins with /v1, and Ollama's with /api.":
    "此服务器没有 {path}。OpenAI 的 API 以 /v1 开头，Ollama 的 API 以 /api 开头。",
  "Too many pictures for one conversation: {count}; the model takes {most}.":
    "一个对话的图片过多：{count} 张；模型接受 {most} 张。",
  "Train an adapter of the linear layers of the blocks.":
    "请只对各层中的线性层训练适配器。",
  "Train an adapter with `cogvlm2-lite finetune`.":
    "请用 `cogvlm2-lite finetune` 训练适配器。",
  "Training":
    "训练",
  "Training needs at least {least} of RAM for the trained numbers and one conversation, where {size} can be used.":
    "训练至少需要 {least} 内存来存放训练的数值和一段对话，而可用的只有 {size}。",
  "Two adapters are called {name!r}.":
    "有两个适配器都叫 {name!r}。",
  "Unknown arguments of from_pretrained: {names}.":
    "from_pretrained 的未知参数：{names}。",
  "Unknown device {name!r}.":
    "未知设备 {name!r}。",
  "Unknown field {param}.":
    "未知字段 {param}。",
  "Unknown field {param}; did you mean {name}?":
    "未知字段 {param}；您是指 {name} 吗？",
  "Unknown kernel {name!r}.":
    "未知计算核 {name!r}。",
  "Unknown level of instructions {name!r} in {variable}.":
    "{variable} 中的指令级别 {name!r} 未知。",
  "Unknown model. The model of this server is {names}.":
    "未知的模型。此服务器的模型是 {names}。",
  "Unknown model. The models of this server are {names}.":
    "未知的模型。此服务器的模型是 {names}。",
  "Unknown number type {name!r}.":
    "未知数值类型 {name!r}。",
  "Unknown prompt template {name!r}.":
    "未知提示模板 {name!r}。",
  "Unknown value {value!r} for {param}.":
    "{param} 的值 {value!r} 未知。",
  "Unpack it and use the folder.":
    "请将其解压，然后使用解压后的文件夹。",
  "Unpack it, and use the folder that contains config.json.":
    "请将其解压，并使用包含 config.json 的文件夹。",
  "Update CogVLM2 Lite, or run quantize again with this version.":
    "请更新 CogVLM2 Lite，或用此版本重新运行 quantize。",
  "Update CogVLM2 Lite.":
    "请更新 CogVLM2 Lite。",
  "Use --device cpu, or another version of torch.":
    "请使用 --device cpu，或换用其他版本的 torch。",
  "Use --device cpu, or install the {build} wheel of torch (see README) and a driver.":
    "请使用 --device cpu，或安装 torch 的 {build} 版本（见 README）和驱动。",
  "Use --device cpu; Apple's GPUs need macOS and an Apple chip.":
    "请使用 --device cpu；Apple 的 GPU 需要 macOS 和 Apple 芯片。",
  "Use --dtype float16 or --dtype auto.":
    "请使用 --dtype float16 或 --dtype auto。",
  "Use a .jsonl, .json, .csv or .tsv file, or a folder of pictures with captions.":
    "请使用 .jsonl、.json、.csv 或 .tsv 文件，或含有图片和说明文字的文件夹。",
  "Use a lower --lr than {rate} with --restart, or look at these rows. The adapter and the state of step {saved} are kept.":
    "请用低于 {rate} 的 --lr 并加 --restart，或检查这些数据行。适配器和第 {saved} 步的状态已保留。",
  "Use a lower --lr than {rate} with --restart. The state of step {saved} is kept.":
    "请用低于 {rate} 的 --lr 并加 --restart。第 {saved} 步的状态已保留。",
  "Use device_map=\"auto\" with vram= and ram=; the memory plan decides which weights are where.":
    "请使用 device_map=\"auto\" 以及 vram= 和 ram=；由内存规划决定各权重放在哪里。",
  "Use its folder, {folder}.":
    "请使用它所在的文件夹 {folder}。",
  "Use one of the files instead of the folder.":
    "请指定其中一个文件，而不是文件夹。",
  "Use one of them at a time.":
    "请每次只使用其中一个。",
  "Use one of {folders}.":
    "请使用其中之一：{folders}。",
  "Use one of {names}, or cuda:1.":
    "请使用 {names} 之一，或 cuda:1。",
  "Use one of {names}.":
    "请使用以下之一：{names}。",
  "Use only the text of this picture.":
    "请只使用这张图片的文本。",
  "Use other rows for --held-out.":
    "请为 --held-out 使用其他数据行。",
  "Use the model it was made for, or --any-base to use it all the same.":
    "请使用训练它时的模型，或用 --any-base 仍然使用它。",
  "Use the released 16-bit checkpoint, a folder that quantize wrote, or a 4-bit folder of bitsandbytes.":
    "请使用发布的 16 位检查点、quantize 生成的文件夹，或 bitsandbytes 的 4 位文件夹。",
  "Use the same settings to continue, another folder, or --restart to start again.":
    "请使用相同的设置继续，或使用另一个文件夹，或用 --restart 重新开始。",
  "Use {folder}.":
    "请使用 {folder}。",
  "Wait until it has ended, or choose another folder for the answers.":
    "请等它结束，或为回答选择另一个文件夹。",
  "Wait until it is ready.":
    "请等它就绪。",
  "Wait until the file is complete, then start again.":
    "请等文件完整后再重新开始。",
  "Wait, or cancel one of them.":
    "请等待，或取消其中一个。",
  "Wait, or cancel that answer.":
    "请等待，或取消那个回答。",
  "What was read is text, not a picture.":
    "读取到的是文本，不是图片。",
  "Write it like 16GiB, or auto for what is free.":
    "请写成 16GiB 的形式，或写 auto 使用空闲的内存。",
  "Write it like 8GiB, 512MiB or 16GB.":
    "请写成 8GiB、512MiB 或 16GB 的形式。",
  "Write it like 8GiB, for two GPUs like 8GiB,12GiB, or auto for what is free.":
    "请写成 8GiB 的形式，两块 GPU 写成 8GiB,12GiB，或写 auto 使用空闲的显存。",
  "Write it like http://localhost:3000.":
    "请写成 http://localhost:3000 的形式。",
  "Write the names of the modules in full.":
    "请写出模块的完整名称。",
  "YCbCr colors in this form":
    "这种形式的 YCbCr 颜色",
  "a DICOM picture":
    "DICOM 图片",
  "a DirectDraw texture":
    "DirectDraw 纹理文件",
  "a DjVu document":
    "DjVu 文档",
  "a GIMP picture":
    "GIMP 图片",
  "a GPU with {sizes}":
    "具有 {sizes} 的 GPU",
  "a JPEG 2000 picture":
    " JPEG 2000 图片",
  "a JPEG XL picture":
    " JPEG XL 图片",
  "a JPEG XR picture":
    "JPEG XR 图片",
  "a JSON schema":
    "JSON Schema",
  "a Netpbm picture":
    "Netpbm 图片",
  "a PDF document":
    " PDF 文档",
  "a Photoshop file":
    " Photoshop 文件",
  "a PostScript file":
    " PostScript 文件",
  "a QOI picture":
    "QOI 图片",
  "a Radiance HDR picture":
    "Radiance HDR 图片",
  "a ZIP archive or an office document":
    " ZIP 压缩包或办公文档",
  "a list of any number of items, each {item}":
    "任意多项的列表，每项为{item}",
  "a list of exactly {most} items, each {item}":
    "恰好 {most} 项的列表，每项为{item}",
  "a list of strings, each a picture in base64":
    "字符串列表，每个字符串是一张 base64 编码的图片",
  "a list of up to {most} items, each {item}":
    "最多 {most} 项的列表，每项为{item}",
  "a list of {count}":
    "{count} 项的列表",
  "a list of {least} or more items, each {item}":
    "{least} 项或更多的列表，每项为{item}",
  "a list of {least} to {most} items, each {item}":
    "{least} 到 {most} 项的列表，每项为{item}",
  "a list that contains only {name}":
    "只包含 {name} 的列表",
  "a number":
    "数",
  "a number above {least} and at most {most}":
    "大于 {least} 且不超过 {most} 的数",
  "a number between {least} and {most}":
    "{least} 到 {most} 之间的数",
  "a number from {least} to {most}":
    "{least} 到 {most} 之间的数",
  "a number of seconds or a duration such as \"5m\"":
    "秒数，或如“5m”的时长",
  "a number of {least} or more":
    "{least} 或更大的数",
  "a number with very many digits":
    "位数极多的数",
  "a picture must have at least 2 x 2 patches":
    "图片至少要有 2 x 2 个图块",
  "a raw camera picture":
    "相机原始格式(RAW)图片",
  "a string":
    "字符串",
  "a string of exactly {most} characters":
    "恰好 {most} 个字符的字符串",
  "a string of up to {most} characters":
    "最多 {most} 个字符的字符串",
  "a string of {least} or more characters":
    "{least} 个或更多字符的字符串",
  "a string of {least} to {most} characters":
    "{least} 到 {most} 个字符的字符串",
  "a text, tokens, or a list of up to {most} of them":
    "一段文本、若干token，或最多 {most} 个这样的提示组成的列表",
  "a video":
    "视频",
  "a web page":
    "网页",
  "a whole number":
    "整数",
  "a whole number above {least} and at most {most}":
    "大于 {least} 且不超过 {most} 的整数",
  "a whole number between {least} and {most}":
    "{least} 到 {most} 之间的整数",
  "a whole number from {least} to {most}":
    "{least} 到 {most} 之间的整数",
  "a whole number of {least} or more":
    "{least} 或更大的整数",
  "about {rate} tokens/s":
    "约每秒 {rate} 个 token",
  "adapter_model.bin is in pickle format, which can run programs, and is not opened. If you trust it, convert it in its folder: python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('adapter_model.bin', weights_only=True), 'adapter_model.safetensors')\"":
    "adapter_model.bin 是 pickle 格式，可能会运行程序，因此不会打开。如果你信任它，请在它所在的文件夹中转换：python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('adapter_model.bin', weights_only=True), 'adapter_model.safetensors')\"",
  "an OpenEXR picture":
    "OpenEXR 图片",
  "an SVG drawing":
    " SVG 图形",
  "an empty list":
    "空列表",
  "an icon file":
    "图标文件",
  "an id or a list of ids":
    "一个编号或编号列表",
  "an object":
    "对象",
  "an object with a {name}":
    "带有 {name} 的对象",
  "blocksize must be one of {names}":
    "blocksize 必须是 {names} 之一",
  "camera raw":
    "相机原始格式(RAW)",
  "can't be used: the model has no tools":
    "无法使用：模型没有工具",
  "can't be used: this server stores no answers, so send the whole conversation as input":
    "无法使用：此服务器不保存回答，请把整个对话作为 input 发送",
  "colors of type {model}":
    "{model} 类型的颜色",
  "complex numbers":
    "复数",
  "compression {name}":
    "{name} 压缩",
  "context {context} tokens":
    "上下文 {context} 个 token",
  "cuda:{index} ({name}) has compute capability {version}, but this torch needs {least} or more":
    "cuda:{index}（{name}）的计算能力为 {version}，而这个 torch 需要 {least} 或更高",
  "cuda:{index} ({name}) has the architecture {architecture}, but this torch is built for {names}":
    "cuda:{index}（{name}）的架构为 {architecture}，而这个 torch 是为 {names} 构建的",
  "device and device_map name different devices: {names}.":
    "device 和 device_map 指定了不同的设备：{names}。",
  "dtype must be float32, float16 or bfloat16":
    "dtype 必须是 float32、float16 或 bfloat16",
  "expected":
    "预计",
  "floating-point":
    "浮点",
  "floating-point samples of {bits} bits whose black and white are unknown":
    "黑白范围未知的 {bits} 位浮点样本",
  "from RAM: {part}":
    "从内存：{part}",
  "from disk: {part}":
    "从磁盘：{part}",
  "from rates ({source}; {numbers})":
    "依据速率（{source}；{numbers}）",
  "hidden_act must be gelu in the vision tower and silu in the decoder":
    "hidden_act 在视觉塔中必须是 gelu，在解码器中必须是 silu",
  "hidden_size / num_attention_heads must be even, because RoPE turns pairs":
    "hidden_size / num_attention_heads 必须是偶数，因为 RoPE 成对旋转",
  "hidden_size must be a multiple of num_attention_heads":
    "hidden_size 必须是 num_attention_heads 的整数倍",
  "hierarchical compression":
    "分层压缩",
  "icon":
    "图标",
  "in RAM":
    "在内存中",
  "in memory":
    "内存中",
  "in_channels must be 3, for red, green and blue":
    "in_channels 必须是 3，即红、绿、蓝",
  "input_ids has places for {count} image tokens; {pictures} pictures have {expected}.":
    "input_ids 有 {count} 个图像 token 的位置；{pictures} 张图片有 {expected} 个。",
  "input_ids must be between 0 and {most}.":
    "input_ids 必须在 0 到 {most} 之间。",
  "input_ids must have the shape [batch, tokens], not {shape}.":
    "input_ids 的形状必须是 [batch, tokens]，而不是 {shape}。",
  "is not supported by this server":
    "不受此服务器支持",
  "it contains only zeros":
    "其中只有零",
  "it has more than {most} characters":
    "它超过 {most} 个字符",
  "it has unknown keys":
    "其中有未知的键",
  "it has {size}":
    "其大小为 {size}",
  "it is not JSON":
    "它不是 JSON",
  "it is read-only for this user":
    "当前用户只能读取它",
  "it must be an object":
    "它必须是一个对象",
  "lm_head":
    "lm_head",
  "lossless compression":
    "无损压缩",
  "lossless compression (JPEG-LS)":
    "无损压缩(JPEG-LS)",
  "max_length is {most}, but bos and the picture have {count} tokens.":
    "max_length 为 {most}，但 bos 和图片共有 {count} 个 token。",
  "max_memory must be like {example}.":
    "max_memory 的形式必须类似 {example}。",
  "measured on this processor, {count} cores, disk stated":
    "在此处理器上测得，{count} 个核心，磁盘为标称值",
  "measured on {date} with torch {torch}: {rate} tokens/s, a new picture in {seconds}":
    "已于 {date} 用 torch {torch} 测量：{rate} 个 token/秒，新图片用时 {seconds}",
  "model {name!r} not found: the model of this server is {model!r}":
    "找不到模型 {name!r}：此服务器的模型是 {model!r}",
  "model {name!r} not found: the models of this server are {model}":
    "找不到模型 {name!r}：此服务器的模型是 {model}",
  "must be false: this server stores no answers":
    "必须是 false：此服务器不保存回答",
  "nested_blocksize must be 256":
    "nested_blocksize 必须是 256",
  "nested_dtype must be float32":
    "nested_dtype 必须是 float32",
  "nested_offset and nested_absmax belong together":
    "nested_offset 和 nested_absmax 必须同时存在",
  "nested_offset must be a finite number":
    "nested_offset 必须是有限的数",
  "no driver is installed":
    "没有安装驱动",
  "none":
    "无",
  "num_attention_heads must be a multiple of num_multi_query_heads":
    "num_attention_heads 必须是 num_multi_query_heads 的整数倍",
  "num_positions must be {count}: the patches and CLS":
    "num_positions 必须是 {count}：图块数加上 CLS",
  "on the GPU":
    "在 GPU 上",
  "on the {count} GPUs":
    "在 {count} 个 GPU 上",
  "other inks than CMYK":
    "CMYK 以外的油墨",
  "other {kind}":
    "另一份 {kind}",
  "per picture":
    "每张图片",
  "per question":
    "每个问题",
  "per token":
    "每个 token",
  "pixel_values must have the shape [batch, {expected}], not {shape}.":
    "pixel_values 的形状必须是 [batch, {expected}]，而不是 {shape}。",
  "predictor {number}":
    "预测器 {number}",
  "predictor {number} and {bits} bits":
    "预测器 {number} 和 {bits} 位",
  "quant_type must be {value}":
    "quant_type 必须是 {value}",
  "raw camera data":
    "相机原始数据",
  "samples of different types":
    "不同类型的样本",
  "shape must be {shape}":
    "shape 必须是 {shape}",
  "signed {bits}-bit samples whose black and white are unknown":
    "黑白范围未知的 {bits} 位有符号样本",
  "stated: a card like {card}":
    "标称值：与 {card} 类似的显卡",
  "stated: one core, {kind}":
    "标称值：一个核心，{kind}",
  "stated: {card}":
    "标称值：{card}",
  "stated: {count} cores, {kind}":
    "标称值：{count} 个核心，{kind}",
  "streamed: {part}":
    "流式：{part}",
  "strips or tiles of more than 1 GiB":
    "超过 1 GiB 的条带或图块",
  "template_version must be one of {names}":
    "template_version 必须是以下之一：{names}",
  "the CPU":
    "CPU",
  "the CPU has AVX512-BF16":
    "CPU 支持 AVX512-BF16",
  "the CPU has no bfloat16 instructions":
    "CPU 没有 bfloat16 指令",
  "the GPU computes bfloat16":
    "GPU 支持 bfloat16",
  "the GPU has no bfloat16, so float16":
    "GPU 不支持 bfloat16，因此用 float16",
  "the language experts":
    "语言专家",
  "the numbers of this model are too large for float16":
    "此模型的数值超出了 float16 的范围",
  "the projector":
    "投影层",
  "the vision experts":
    "视觉专家",
  "the vision tower":
    "视觉塔",
  "this GPU path has not been measured on your kind of card":
    "还没有在您这类显卡上测量过这条 GPU 路径",
  "this computer":
    "这台电脑",
  "this server has one model, and its models can't be changed over the API: start `cogvlm2-lite serve` with another folder":
    "此服务器只有一个模型，不能通过 API 更改模型：请用另一个文件夹启动 `cogvlm2-lite serve`",
  "token ids must be below vocab_size, {count}":
    "token 编号必须小于 vocab_size，即 {count}",
  "torch is a CPU build":
    "torch 是 CPU 版本",
  "torch is built for MPS and finds no GPU of Apple":
    "torch 是为 MPS 构建的，但没有找到 Apple 的 GPU",
  "torch is built for XPU and finds no GPU":
    "torch 是为 XPU 构建的，但没有找到 GPU",
  "torch is built for {version} and finds no GPU":
    "torch 是为 {version} 构建的，但没有找到 GPU",
  "torch is built for {version}, and this GPU needs a build for {build}":
    "torch 是为 {version} 构建的，而这块 GPU 需要 {build} 版本",
  "torch is not built for MPS":
    "torch 不是为 MPS 构建的",
  "torch is not built for XPU":
    "torch 不是为 XPU 构建的",
  "true or false":
    "true 或 false",
  "unknown size":
    "大小未知",
  "untested on real hardware: this GPU path has not been measured on your kind of card":
    "尚未在真实硬件上测试：还没有在您这类显卡上测量过这条 GPU 路径",
  "video":
    "视频",
  "vision hidden_size must be a multiple of num_heads":
    "视觉部分的 hidden_size 必须是 num_heads 的整数倍",
  "{bits} bits per pixel":
    "每像素 {bits} 位",
  "{bits} bits per sample":
    "每个样本 {bits} 位",
  "{bits} bits per sample in this form":
    "这种形式的每样本 {bits} 位",
  "{bits}-bit samples whose black and white are unknown":
    "黑白范围未知的 {bits} 位样本",
  "{compute} TFLOP/s, memory {memory}, bus {bus}, disk {disk} GB/s":
    "{compute} TFLOP/s，内存 {memory}，总线 {bus}，磁盘 {disk} GB/s",
  "{compute} TFLOP/s, memory {memory}, disk {disk} GB/s":
    "{compute} TFLOP/s，内存 {memory}，磁盘 {disk} GB/s",
  "{count} GPUs with {sizes}":
    "{count} 个 GPU，显存 {sizes}",
  "{count} conversations of {context} tokens":
    "{count} 个对话，每个 {context} 个 token",
  "{count} of {total} language experts":
    "{total} 个语言专家中的 {count} 个",
  "{count} of {total} rows can't be used: {reasons}.":
    "{total} 行中有 {count} 行无法使用：{reasons}。",
  "{count} of {total} vision experts":
    "{total} 个视觉专家中的 {count} 个",
  "{count} of {total} vision tower blocks":
    "视觉塔 {total} 层中的 {count} 层",
  "{count} requests are already in progress.":
    "已有 {count} 个请求正在处理。",
  "{count} requests are already waiting.":
    "已有 {count} 个请求在等待。",
  "{count} rows at once do not fit in memory. {why}":
    "{count} 行同时计算时内存放不下。{why}",
  "{device} ({name}): {maker} GPUs are untested on real hardware. If answers look wrong, use --device cpu.":
    "{device}（{name}）：{maker} 的 GPU 尚未在真实硬件上测试过。如果回答看起来不对，请使用 --device cpu。",
  "{device}: {peak} at the peak, {budget} may be used; {context}":
    "{device}：峰值 {peak}，可用 {budget}；{context}",
  "{disk_size} are read from disk ({disk_parts})":
    "{disk_size} 来自磁盘（{disk_parts}）",
  "{file} begins with {count} zero bytes: its space was reserved, but its content was not downloaded.":
    "{file} 以 {count} 个零字节开头：空间已预留，但内容没有下载。",
  "{file} can't be used: {why}.":
    "无法使用 {file}：{why}。",
  "{file} changes {tensor}. Adapters of the output matrix and of the embedding are not supported.":
    "{file} 修改了 {tensor}。不支持修改输出矩阵和嵌入的适配器。",
  "{file} contains a message of the server instead of the file: {message}":
    "{file} 中是服务器返回的消息，而不是文件内容：{message}",
  "{file} does not contain a JSON object.":
    "{file} 的内容不是 JSON 对象。",
  "{file} does not exist.":
    "{file} 不存在。",
  "{file} has a gap of {count} bytes before {tensor}.":
    "{file} 在 {tensor} 之前有 {count} 字节的空隙。",
  "{file} has an overlap of {count} bytes before {tensor}.":
    "{file} 在 {tensor} 之前有 {count} 字节的重叠。",
  "{file} has format version {format!r}; this program knows version {known}.":
    "{file} 的格式版本是 {format!r}；本程序支持版本 {known}。",
  "{file} has lines that {command} did not write.":
    "{file} 中有并非由 {command} 写入的行。",
  "{file} has lora_{side} of {tensor} twice.":
    "{file} 中 {tensor} 的 lora_{side} 出现了两次。",
  "{file} has more than 1 MiB, so it is no adapter's.":
    "{file} 超过 1 MiB，因此不是适配器的文件。",
  "{file} has more than 16 MiB, so it is not a manifest.":
    "{file} 超过 16 MiB，不是清单文件。",
  "{file} has more than the {most} million pixels that a picture may have.":
    "{file} 的像素超过图片上限 {most} 百万像素。",
  "{file} has no column for pictures and answers.":
    "{file} 中没有图片和回答的列。",
  "{file} has no pixels ({width} x {height}).":
    "{file} 没有像素（{width} x {height}）。",
  "{file} has no rows that can be used.":
    "{file} 中没有可用的行。",
  "{file} has no tensors.":
    "{file} 中没有张量。",
  "{file} has no weight_map.":
    "{file} 中没有 weight_map。",
  "{file} has only one of the two matrices of {tensor}.":
    "{file} 只含有 {tensor} 的两个矩阵之一。",
  "{file} has only one page, so page {page} can't be read.":
    "{file} 只有一页,无法读取第 {page} 页。",
  "{file} has only {size} bytes, too few for a header.":
    "{file} 只有 {size} 字节，放不下文件头。",
  "{file} has several adapters.":
    "{file} 含有多个适配器。",
  "{file} has tensors that are in {other} too: {count} ({names}).":
    "{file} 中有 {other} 中也有的张量：{count} 个（{names}）。",
  "{file} has tensors that {index} does not list: {count} ({names}).":
    "{file} 中有 {index} 没有列出的张量：{count} 个（{names}）。",
  "{file} has the tensor {tensor}, which is no part of an adapter of this model.":
    "{file} 含有张量 {tensor}，它不属于此模型的适配器。",
  "{file} has two columns {name}.":
    "{file} 有两个名为 {name} 的列。",
  "{file} has {kind} grey values outside of 0 to {most}, so black and white are not defined.":
    "{file} 的{kind}灰度值超出 0 到 {most}，无法确定黑与白。",
  "{file} has {pages} pages, so page {page} can't be read.":
    "{file} 有 {pages} 页,无法读取第 {page} 页。",
  "{file} has {size}, more than the {most} that a picture may have.":
    "{file} 大小为 {size}，超过图片上限 {most}。",
  "{file} has {width} x {height} pixels, more than the {most} million that a picture may have.":
    "{file} 有 {width} x {height} 像素，超过图片上限 {most} 百万像素。",
  "{file} is a GGUF file, the format of llama.cpp, which CogVLM2 Lite can't read.":
    "{file} 是 llama.cpp 使用的 GGUF 文件，CogVLM2 Lite 无法读取。",
  "{file} is a Git LFS pointer of {count} bytes: the file itself ({size}) was not downloaded.":
    "{file} 只是 {count} 字节的 Git LFS 指针：文件本身（{size}）没有下载。",
  "{file} is a Git LFS pointer: the picture itself was not downloaded.":
    "{file} 是 Git LFS 指针文件：图片本身尚未下载。",
  "{file} is a folder, not a picture.":
    "{file} 是文件夹，不是图片。",
  "{file} is a link to a file outside of the folder.":
    "{file} 是指向文件夹之外的链接。",
  "{file} is a packed archive.":
    "{file} 是压缩包。",
  "{file} is a pickle file of PyTorch, which can run any program when it is opened.":
    "{file} 是 PyTorch 的 pickle 文件，打开它可能会运行任意程序。",
  "{file} is a picture in {kind}, and the package that reads them, {package}, is not installed with this ability.":
    "{file} 是 {kind} 图片,而读取它所需的软件包 {package} 没有安装或不支持该格式。",
  "{file} is a text file, not a picture.":
    "{file} 是文本文件，不是图片。",
  "{file} is a web page or a message of the server (HTML or XML), not the file.":
    "{file} 是网页或服务器消息（HTML 或 XML），不是文件本身。",
  "{file} is a {kind} picture with {variant}, which this program does not read.":
    "{file} 是{variant}的 {kind} 图片,本程序无法读取。",
  "{file} is an archive.":
    "{file} 是压缩包。",
  "{file} is damaged or ends early: {percent}% of the picture is missing.":
    "{file} 已损坏或提前结束:图片缺少 {percent}%。",
  "{file} is damaged.":
    "{file} 已损坏。",
  "{file} is damaged. The run continues from step {step}.":
    "{file} 已损坏。训练从第 {step} 步继续。",
  "{file} is damaged: it is a {kind} picture that should have at least {needed}, but has {size}.":
    "{file} 已损坏:这张 {kind} 图片至少应有 {needed},但只有 {size}。",
  "{file} is damaged: it starts as a {kind} picture of {width} x {height} pixels, but the rest can't be decoded.":
    "{file} 已损坏：开头像是 {width} x {height} 像素的 {kind} 图片，但其余部分无法解码。",
  "{file} is damaged: it starts as a {kind} picture, but can't be decoded.":
    "{file} 已损坏：开头像是 {kind} 图片，但无法解码。",
  "{file} is empty.":
    "{file} 是空文件。",
  "{file} is in no known picture format.":
    "{file} 不是已知的图片格式。",
  "{file} is incomplete: it has {size} of the {expected} bytes that its header lists ({missing} are missing).":
    "{file} 不完整：文件头列出 {expected} 字节，实际只有 {size} 字节（缺少 {missing}）。",
  "{file} is nested too deeply.":
    "{file} 的嵌套过深。",
  "{file} is not a byte-level BPE tokenizer, which CogVLM2 needs.":
    "{file} 不是 CogVLM2 所需的字节级 BPE 分词器。",
  "{file} is not a list of rows in JSON.":
    "{file} 不是 JSON 的行列表。",
  "{file} is not a manifest of version {known}: {why}.":
    "{file} 不是版本 {known} 的清单文件：{why}。",
  "{file} is not a regular file.":
    "{file} 不是普通文件。",
  "{file} is not an index: not a file, or more than 16 MiB.":
    "{file} 不是索引：不是文件，或超过 16 MiB。",
  "{file} is not data of a known form.":
    "{file} 不是已知格式的数据。",
  "{file} is not in UTF-8.":
    "{file} 不是 UTF-8 编码。",
  "{file} is not valid JSON: line {line}, column {column}: {why}.":
    "{file} 不是有效的 JSON：第 {line} 行第 {column} 列：{why}。",
  "{file} is {kind}, which this program does not open.":
    "{file} 是{kind}，本程序无法打开。",
  "{file} names the file {name!r}; only plain .safetensors file names inside the folder are allowed.":
    "{file} 中有文件名 {name!r}；只允许文件夹内普通的 .safetensors 文件名。",
  "{file} needs more memory than is free ({width} x {height} pixels).":
    "{file} 需要的内存超过空闲内存（{width} x {height} 像素）。",
  "{file} was changed by another program during this run.":
    "运行期间，{file} 被其他程序更改。",
  "{file} was changed while the model was in use: it had {old} bytes, now {new}.":
    "{file} 在模型使用期间被更改：原为 {old} 字节，现为 {new} 字节。",
  "{file}, line {line}: {why}.":
    "{file} 第 {line} 行：{why}。",
  "{file}: the matrices of {tensor} have the shapes {down} and {up}; this model needs [rank, {columns}] and [{rows}, rank].":
    "{file}：{tensor} 的矩阵形状是 {down} 和 {up}；此模型需要 [秩, {columns}] 和 [{rows}, 秩]。",
  "{file}: {key} has a pattern that is not allowed.":
    "{file}：{key} 含有不允许的模式。",
  "{file}: {key} must be a positive number, not {value}.":
    "{file}：{key} 必须是正数，而不是 {value}。",
  "{file}: {tensor} has the type {dtype}; adapters are float32, float16 or bfloat16.":
    "{file}：{tensor} 的类型是 {dtype}；适配器应为 float32、float16 或 bfloat16。",
  "{folder} can't be used: its setting {key} is {value}, which is not supported.":
    "无法使用 {folder}：它的设置 {key} 是 {value}，本程序不支持。",
  "{folder} can't be written to: {why}. The training continues, and saving is tried again after the next step.":
    "无法写入 {folder}：{why}。训练继续进行，下一步之后会再次尝试保存。",
  "{folder} has a run with {key} = {old}, not {new}.":
    "{folder} 中的训练使用 {key} = {old}，而不是 {new}。",
  "{folder} has files that can't be used: {count} of {total}. {problems}":
    "{folder} 中有无法使用的文件：{total} 个中的 {count} 个。{problems}",
  "{folder} has its weights as {format} ({names}), which CogVLM2 Lite can't read.":
    "{folder} 中的权重是 {format} 格式（{names}），CogVLM2 Lite 无法读取。",
  "{folder} has its weights only as pickle files ({names}), which can run any program when they are opened.":
    "{folder} 中只有 pickle 格式的权重（{names}），打开它们可能会运行任意程序。",
  "{folder} has labels in several languages.":
    "{folder} 含有多种语言的标签。",
  "{folder} has no config.json, so it is not a model folder.":
    "{folder} 中没有 config.json，不是模型文件夹。",
  "{folder} has no config.json; the model is in a folder below it.":
    "{folder} 中没有 config.json；模型在它下面的文件夹中。",
  "{folder} has no data of the form {form}.":
    "{folder} 中没有 {form} 形式的数据。",
  "{folder} has no pictures with captions.":
    "{folder} 中没有带说明文字的图片。",
  "{folder} has no safetensors weights.":
    "{folder} 中没有 safetensors 权重。",
  "{folder} has no {file}, so text can't be turned into tokens.":
    "{folder} 中没有 {file}，无法把文字转换为 token。",
  "{folder} has no {name}.":
    "{folder} 中没有 {name}。",
  "{folder} has no {what} yet, but downloads that have not finished: {count} ({names}).":
    "{folder} 中还没有 {what}，但有 {count} 个尚未完成的下载（{names}）。",
  "{folder} has only packed archives ({names}).":
    "{folder} 中只有压缩包（{names}）。",
  "{folder} has several files of data: {files}.":
    "{folder} 中有多个数据文件：{files}。",
  "{folder} has weights, but no config.json, which says what model they belong to.":
    "{folder} 中有权重，但没有说明它们属于哪个模型的 config.json。",
  "{folder} has {count} of {total} weight files ({names}), and no {index} that lists their tensors.":
    "{folder} 中只有 {total} 个权重文件中的 {count} 个（{names}），也没有列出其张量的 {index}。",
  "{folder} has {names}, but no {index} that lists their tensors.":
    "{folder} 中有 {names}，但没有列出其张量的 {index}。",
  "{folder} has {other}, but no {name}.":
    "{folder} 中有 {other}，但没有 {name}。",
  "{folder} has {single} and a {index} that does not name it, so it is unclear which weights count.":
    "{folder} 中有 {single}，又有没有列出它的 {index}，不清楚以哪些权重为准。",
  "{folder} is a LoRA adapter, not a whole model.":
    "{folder} 是 LoRA 适配器，不是完整的模型。",
  "{folder} is a checkpoint of SwissArmyTransformer (SAT).":
    "{folder} 是 SwissArmyTransformer（SAT）的检查点。",
  "{folder} is a folder of the Hugging Face cache, not a model folder.":
    "{folder} 是 Hugging Face 缓存中的文件夹，不是模型文件夹。",
  "{folder} is a pipeline of diffusers, which CogVLM2 Lite does not run.":
    "{folder} 是 diffusers 的流水线，CogVLM2 Lite 不支持运行它。",
  "{folder} is an unfinished conversion.":
    "{folder} 是尚未完成的转换。",
  "{folder} lacks files: {which}.":
    "{folder} 缺少文件：{which}。",
  "{folder} lacks files: {which}. Downloads that have not finished are in it: {names}.":
    "{folder} 缺少文件：{which}。其中有尚未完成的下载：{names}。",
  "{folder} lacks files: {which}. {link} is a link to {target}, which does not exist.":
    "{folder} 缺少文件：{which}。{link} 是指向 {target} 的链接，而后者不存在。",
  "{folder} was made with init_lora_weights {value}, which also changes the base model.":
    "{folder} 是用 init_lora_weights {value} 制作的，这也会改变基础模型。",
  "{folder} was trained on another model of the same shape.":
    "{folder} 是在另一个相同形状的模型上训练的。",
  "{folder}: {tensor} has the rank {rank}, but the settings say {stated}.":
    "{folder}：{tensor} 的秩是 {rank}，但设置中写的是 {stated}。",
  "{folder}: {tensor} has values that are not finite numbers.":
    "{folder}：{tensor} 含有不是有限数的值。",
  "{gpu} does not respond: {why}":
    "{gpu} 没有响应：{why}",
  "{index} lists tensors in {file} ({names}), but no file has {tensor}.":
    "{index} 说 {file} 中有张量（{names}），但没有文件包含 {tensor}。",
  "{index} lists tensors in {file} ({names}), but {tensor} is in {other}.":
    "{index} 说 {file} 中有张量（{names}），但 {tensor} 在 {other} 中。",
  "{key} in {file} must map names to strings.":
    "{file} 中的 {key} 必须是名称到字符串的映射。",
  "{key} must be {expected}, not {value!r}.":
    "{key} 必须是{expected}，而不是 {value!r}。",
  "{kind} can't be opened as a picture.":
    "无法把 {kind} 作为图片打开。",
  "{missing} of {count} ({names})":
    "{count} 个中的 {missing} 个（{names}）",
  "{model} on {machine}.":
    "{model}，运行于 {machine}。",
  "{name!r} can't be the name of an adapter.":
    "{name!r} 不能用作适配器的名称。",
  "{name!r} is a file, but a model is a folder.":
    "{name!r} 是文件，而模型是文件夹。",
  "{names} and {count} more":
    "{names} 以及另外 {count} 个",
  "{names} or {last}":
    "{names} 或 {last}",
  "{name} is set, so torch computes on the CPU what this GPU can't.":
    "设置了 {name}，因此该 GPU 无法计算的部分由 torch 在 CPU 上计算。",
  "{name} must be between 0 and {most}.":
    "{name} 必须在 0 和 {most} 之间。",
  "{name} must have the shape of input_ids, {expected}, not {shape}.":
    "{name} 的形状必须与 input_ids 相同，即 {expected}，而不是 {shape}。",
  "{name} of sample {number} must have the shape [1, tokens], not {shape}.":
    "样本 {number} 的 {name} 的形状必须是 [1, tokens]，而不是 {shape}。",
  "{name} was requested":
    "指定了 {name}",
  "{origin!r} is not an origin.":
    "{origin!r} 不是来源（origin）。",
  "{param} can't be combined with JSON: it would cut the answer off.":
    "{param} 不能与 JSON 同时使用：它会截断回答。",
  "{param} can't change the weights: they are used as they are in the folder.":
    "{param} 不能改变权重：权重按文件夹中的形式使用。",
  "{param} ends with an empty question.":
    "{param} 以空的问题结尾。",
  "{param} has a token that is not between 0 and {most}.":
    "{param} 中有一个token不在 0 到 {most} 之间。",
  "{param} has more than {most} characters.":
    "{param} 超过 {most} 个字符。",
  "{param} has no bytes after the comma.":
    "{param} 的逗号之后没有字节。",
  "{param} has no valid base64 after the comma.":
    "{param} 的逗号之后不是有效的 base64。",
  "{param} has two different pictures, but the model takes one per conversation: ask about each in a separate conversation.":
    "{param} 有两张不同的图片，而模型每个对话只接受一张：请在不同的对话中分别询问。",
  "{param} is an answer without a question before it.":
    "{param} 是回答，但前面没有问题。",
  "{param} is missing: it must be a JSON schema.":
    "缺少 {param}：它必须是 JSON Schema。",
  "{param} is missing: it must be {expected}.":
    "缺少 {param}：它必须是 {expected}。",
  "{param} must be 1 or more, not {value}.":
    "{param} 必须是 1 或更大，而不是 {value}。",
  "{param} must be a picture in base64, because this server opens neither web addresses nor files.":
    "{param} 必须是 base64 编码的图片，因为此服务器既不打开网址也不打开文件。",
  "{param} must be above 0 and at most {most}, not {value}.":
    "{param} 必须大于 0 且不超过 {most}，而不是 {value}。",
  "{param} must be above 0, not {value}.":
    "{param} 必须大于 0，而不是 {value}。",
  "{param} must be at least 0 and below 1, not {value}.":
    "{param} 必须大于等于 0 且小于 1，而不是 {value}。",
  "{param} must be at most {most}, the context of the model, not {value}.":
    "{param} 最多为 {most}（模型的上下文长度），不能为 {value}。",
  "{param} must be between {least} and {most}, not {value}.":
    "{param} 必须在 {least} 到 {most} 之间，而不是 {value}。",
  "{param} must be {expected}, not {value}.":
    "{param} 必须是 {expected}，而不是 {value}。",
  "{param} must be {most} or less, not {value}.":
    "{param} 必须小于等于 {most}，而不是 {value}。",
  "{param} must begin with data:image/...;base64, because this server opens neither web addresses nor files.":
    "{param} 必须以 data:image/...;base64, 开头，因为此服务器既不打开网址也不打开文件。",
  "{param} must begin with data:image/...;base64, or https://.":
    "{param} 必须以 data:image/...;base64, 或 https:// 开头。",
  "{param} must end with a message of the user, the question.":
    "{param} 必须以用户的消息（即问题）结尾。",
  "{param} needs {option} as well.":
    "{param} 还需要 {option}。",
  "{param} requires the call of a function, and {tools} does not have it.":
    "{param} 要求调用一个函数，但 {tools} 中没有该函数。",
  "{path} is not a folder":
    "{path} 不是文件夹",
  "{phase} needs at least {least} of RAM, where {usable}: {missing} more is needed.":
    "{phase}至少需要 {least} 内存，{usable}：还差 {missing}。",
  "{phase} needs at least {least} on {device}, where {usable}: {missing} more is needed.":
    "{phase}在 {device} 上至少需要 {least}，{usable}：还差 {missing}。",
  "{ram_size} are copied from RAM ({ram_parts})":
    "{ram_size} 来自内存（{ram_parts}）",
  "{ram_size} are copied from RAM ({ram_parts}) and {disk_size} from disk ({disk_parts})":
    "{ram_size} 来自内存（{ram_parts}），{disk_size} 来自磁盘（{disk_parts}）",
  "{size} can be used":
    "可用 {size}",
  "{size} can be used ({origin})":
    "可用 {size}（{origin}）",
  "{size} for {option} is too small for any plan.":
    "{option} 的 {size} 太小，无法作任何计划。",
  "{size} free now, {reserve} left for other programs":
    "现有空闲 {size}，{reserve} 留给其他程序",
  "{size} free now, {reserve} left for the driver and other programs":
    "现有空闲 {size}，{reserve} 留给驱动和其他程序",
  "{size} given, {reserve} left for other programs":
    "给定 {size}，{reserve} 留给其他程序",
  "{size} given, {reserve} left for the driver and other programs":
    "给定 {size}，{reserve} 留给驱动和其他程序",
  "{size} is allowed, but only {free} is free on {device}; the plan uses what is free.":
    "允许使用 {size}，但{device}只有 {free} 空闲；计划只使用空闲部分。",
  "{size} of weights are kept in RAM, where {host} may be used; the others stay on disk.":
    "{size} 权重在内存中等待，那里可用 {host}；其余在磁盘上。",
  "{size} of weights, including the embedding, are in RAM, where {host} may be used.":
    "{size} 权重在内存中等待（词嵌入也在那里读取），那里可用 {host}。",
  "{size} of zeros follow its byte {place}":
    "从第 {place} 字节起有 {size} 的零",
  "{speed} for each of {count} conversations":
    "{count} 个对话各{speed}",
  "{tensor} comes with {names}, but without a quant_state that says how it was quantized.":
    "{tensor} 带有 {names}，但没有说明其量化方式的 quant_state。",
  "{tensor} has the shape {shape}; config.json requires {expected}.":
    "{tensor} 的形状是 {shape}；config.json 要求 {expected}。",
  "{tensor} has two {role} tensors.":
    "{tensor} 有两个 {role} 张量。",
  "{tensor} has {size} bytes of {dtype}; 4-bit codes of shape {shape} need {expected}.":
    "{tensor} 有 {size} 字节的 {dtype}；形状为 {shape} 的 4 位编码需要 {expected} 字节。",
  "{tensor} in {file} was not downloaded completely: {problem}.":
    "{file} 中的 {tensor} 没有下载完整：{problem}。",
  "{tensor} is stored as {dtype}; expected {names}.":
    "{tensor} 存储为 {dtype}；应为 {names}。",
  "{tensor} must come with {expected}, but has {found}.":
    "{tensor} 必须带有 {expected}，但带有的是 {found}。",
  "{tensor}.quant_map has other values than {kind}.":
    "{tensor}.quant_map 的值与 {kind} 不同。",
  "{tensor}.quant_state is {size} bytes of {dtype}; expected U8 and at most {most}.":
    "{tensor}.quant_state 是 {size} 字节的 {dtype}；应为 U8 且最多 {most} 字节。",
  "{tensor}.quant_state: {why}.":
    "{tensor}.quant_state：{why}。",
  "{value!r} is not a size for {option}.":
    "{value!r} 不是 {option} 可用的大小。",
  "{value!r} is not a size.":
    "{value!r} 不是大小。",
  "{value} for {option} is more than any computer has.":
    "{option} 的 {value} 超过任何电脑所有的内存。",
  "{where} has no vision_config, so this is not a CogVLM2 image model.":
    "{where} 中没有 vision_config，这不是 CogVLM2 图像模型。",
  "{where} has the invalid data_offsets {offsets}.":
    "{where} 的 data_offsets {offsets} 无效。",
  "{where} has the invalid shape {shape}.":
    "{where} 的形状 {shape} 无效。",
  "{where} has the unknown type {dtype!r}; the known ones are {names}.":
    "{where} 的类型 {dtype!r} 未知；已知的有 {names}。",
  "{where} has tied word embeddings, which CogVLM2 lacks.":
    "{where} 使用绑定的词嵌入（tied word embeddings），CogVLM2 没有这种结构。",
  "{where} has unknown keys: {names}.":
    "{where} 中有未知的键：{names}。",
  "{where} has {size} bytes, but {dtype} of shape {shape} needs {expected}.":
    "{where} 有 {size} 字节，但形状为 {shape} 的 {dtype} 需要 {expected} 字节。",
  "{where} is nested too deeply.":
    "{where} 的嵌套过深。",
  "{where} is not valid JSON: {why}.":
    "{where} 不是有效的 JSON：{why}。",
  "{where} is not valid UTF-8.":
    "{where} 不是有效的 UTF-8。",
  "{where} is not valid: {why}.":
    "{where} 无效：{why}。",
  "{where} lacks {names}.":
    "{where} 缺少 {names}。",
  "{where} must have exactly dtype, shape and data_offsets.":
    "{where} 必须恰好有 dtype、shape 和 data_offsets。",
  "{where}: the weights are quantized with {method}, which CogVLM2 Lite can't read.":
    "{where}：权重是用 {method} 量化的，CogVLM2 Lite 无法读取。",
  "{where}: this is {name}, which CogVLM2 Lite does not run.":
    "{where}：这是 {name}，CogVLM2 Lite 不支持运行它。",
  "{where}: this is {name}, which CogVLM2 Lite does not run. {why}":
    "{where}：这是 {name}，CogVLM2 Lite 不支持运行它。{why}",
};
