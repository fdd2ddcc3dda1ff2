<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="zh_CN">
<context>
    <name>About</name>
    <message>
        <source>About</source>
        <translation>关于</translation>
    </message>
    <message>
        <source>CogVLM2 Lite {version}. This program and its demo model are under the Apache License 2.0. Weights of CogVLM2 are under the CogVLM2 License and the Meta Llama 3 Community License. Qt is used under the LGPL. Nothing leaves this computer: there are no update checks and no telemetry.</source>
        <translation>CogVLM2 Lite {version}。本程序及其演示模型采用 Apache 2.0 许可证。CogVLM2 的权重采用 CogVLM2 License 和 Meta Llama 3 Community License。Qt 按 LGPL 使用。没有任何内容离开这台电脑：不检查更新，也不收集使用数据。</translation>
    </message>
    <message>
        <source>Checking this computer…</source>
        <translation>正在检查这台电脑…</translation>
    </message>
    <message>
        <source>Report about this computer</source>
        <translation>关于这台电脑的报告</translation>
    </message>
    <message>
        <source>Copy the report</source>
        <translation>复制报告</translation>
    </message>
</context>
<context>
    <name>Answering</name>
    <message>
        <source>Earlier answers about other parts of the picture, which the model does not get: {count}.</source>
        <translation>关于图片其他部分的较早回答（模型不会收到）：{count} 条。</translation>
    </message>
    <message>
        <source>Memory is short: up to {size} of weights are read from RAM or disk.</source>
        <translation>内存不足：最多有 {size} 的权重要从内存或硬盘读取。</translation>
    </message>
    <message>
        <source>The oldest {count} questions no longer fit and were left out.</source>
        <translation>最早的 {count} 个问题放不下，已省略。</translation>
    </message>
    <message>
        <source>Part {number} of {count}</source>
        <translation>第 {number} 部分，共 {count} 部分</translation>
    </message>
</context>
<context>
    <name>App</name>
    <message>
        <source>CogVLM2 Lite is already open, but its window does not answer. Two windows would write the same conversations. Wait, or end the other program, then try again.</source>
        <translation>CogVLM2 Lite 已经打开，但它的窗口没有响应。两个窗口会写入相同的对话。请稍候，或结束另一个程序，然后重试。</translation>
    </message>
</context>
<context>
    <name>AskingPage</name>
    <message>
        <source>Cancel</source>
        <translation>取消</translation>
    </message>
    <message>
        <source>Progress</source>
        <translation>进度</translation>
    </message>
    <message>
        <source>Resume</source>
        <translation>继续</translation>
    </message>
    <message>
        <source>Start</source>
        <translation>开始</translation>
    </message>
    <message>
        <source>Pause</source>
        <translation>暂停</translation>
    </message>
    <message>
        <source>Loading the model…</source>
        <translation>正在加载模型…</translation>
    </message>
    <message>
        <source>Paused; the model stays in memory.</source>
        <translation>已暂停；模型仍在内存中。</translation>
    </message>
    <message>
        <source>Scoring…</source>
        <translation>正在评分…</translation>
    </message>
    <message>
        <source>Stopping…</source>
        <translation>正在停止…</translation>
    </message>
    <message>
        <source>{time} left.</source>
        <translation>还需 {time}。</translation>
    </message>
    <message>
        <source>{counts}.</source>
        <translation>{counts}。</translation>
    </message>
    <message>
        <source>, </source>
        <translation>，</translation>
    </message>
</context>
<context>
    <name>Banner</name>
    <message>
        <source>Choose the memory</source>
        <translation>选择内存</translation>
    </message>
    <message>
        <source>Restart</source>
        <translation>重新启动</translation>
    </message>
    <message>
        <source>Restart the engine</source>
        <translation>重新启动引擎</translation>
    </message>
    <message>
        <source>Close the message</source>
        <translation>关闭消息</translation>
    </message>
    <message>
        <source>Try again</source>
        <translation>重试</translation>
    </message>
</context>
<context>
    <name>Batch</name>
    <message>
        <source>Picture</source>
        <translation>图片</translation>
    </message>
    <message>
        <source>Answer</source>
        <translation>回答</translation>
    </message>
    <message>
        <source>waiting</source>
        <translation>等待中</translation>
    </message>
    <message>
        <source>in progress…</source>
        <translation>正在提问…</translation>
    </message>
</context>
<context>
    <name>BatchPage</name>
    <message>
        <source>Ask about many pictures</source>
        <translation>对多张图片提问</translation>
    </message>
    <message>
        <source>Every answer is saved at once. You can stop at any time; starting again skips pictures that have an answer.</source>
        <translation>每个回答都会立即保存。可以随时停止；再次开始时会跳过已有回答的图片。</translation>
    </message>
    <message>
        <source>Open the folder</source>
        <translation>打开文件夹</translation>
    </message>
    <message>
        <source>Search in names and answers</source>
        <translation>在文件名和回答中搜索</translation>
    </message>
    <message>
        <source>Which pictures are shown</source>
        <translation>显示哪些图片</translation>
    </message>
    <message>
        <source>All pictures</source>
        <translation>全部图片</translation>
    </message>
    <message>
        <source>Answered</source>
        <translation>已回答</translation>
    </message>
    <message>
        <source>Failed</source>
        <translation>失败</translation>
    </message>
    <message>
        <source>Waiting</source>
        <translation>等待中</translation>
    </message>
    <message>
        <source>Pictures and answers</source>
        <translation>图片和回答</translation>
    </message>
    <message>
        <source>Choose a folder and write a question first.</source>
        <translation>请先选择文件夹并写下问题。</translation>
    </message>
    <message>
        <source>Looking for text files of your own…</source>
        <translation>正在查找您自己的文本文件……</translation>
    </message>
    <message>
        <source>Nothing was started.</source>
        <translation>没有开始任何任务。</translation>
    </message>
    <message>
        <source>A temporary file can&apos;t be written: {why}.</source>
        <translation>无法写入临时文件：{why}。</translation>
    </message>
    <message>
        <source>Ask again about {count} failed</source>
        <translation>重新询问 {count} 个失败的图片</translation>
    </message>
    <message>
        <source>Reading the folder…</source>
        <translation>正在读取文件夹…</translation>
    </message>
    <message>
        <source>Pausing after this picture.</source>
        <translation>处理完这张图片后暂停。</translation>
    </message>
    <message>
        <source>Answers: {folder}</source>
        <translation>回答保存在：{folder}</translation>
    </message>
    <message>
        <source>{done} of {total} pictures</source>
        <translation>已完成 {done} / {total} 张图片</translation>
    </message>
    <message>
        <source>{count} of them answered before</source>
        <translation>其中 {count} 张之前已回答</translation>
    </message>
    <message>
        <source>{count} failed</source>
        <translation>{count} 张失败</translation>
    </message>
    <message>
        <source>The answer was saved.</source>
        <translation>回答已保存。</translation>
    </message>
    <message>
        <source>The answer was saved in answers.jsonl. The text file of {picture} was changed by another program, and is kept.</source>
        <translation>回答已保存到 answers.jsonl。{picture} 的文本文件已被其他程序修改，因此保持不变。</translation>
    </message>
    <message>
        <source>Export the rows shown</source>
        <translation>导出显示的行</translation>
    </message>
    <message>
        <source>Export…</source>
        <translation>导出…</translation>
    </message>
    <message>
        <source>Answers about {folder}</source>
        <translation>{folder} 的回答</translation>
    </message>
    <message>
        <source>{count} rows were written to {file}.</source>
        <translation>已将 {count} 行写入 {file}。</translation>
    </message>
    <message>
        <source>Ask more about this picture</source>
        <translation>继续询问这张图片</translation>
    </message>
    <message>
        <source>Edit the answer</source>
        <translation>编辑回答</translation>
    </message>
    <message>
        <source>Ask again about this picture</source>
        <translation>重新询问这张图片</translation>
    </message>
    <message>
        <source>Copy the answer</source>
        <translation>复制回答</translation>
    </message>
</context>
<context>
    <name>ChatPage</name>
    <message>
        <source>{address} is a network address, and this program downloads nothing. Save the picture and drop the file.</source>
        <translation>{address} 是网络地址，本程序不下载任何内容。请先保存图片，再拖入文件。</translation>
    </message>
    <message>
        <source>Pasted picture</source>
        <translation>粘贴的图片</translation>
    </message>
    <message>
        <source>There is no picture on the clipboard.</source>
        <translation>剪贴板上没有图片。</translation>
    </message>
    <message>
        <source>Open pictures</source>
        <translation>打开图片</translation>
    </message>
    <message>
        <source>Pictures</source>
        <translation>图片</translation>
    </message>
    <message>
        <source>Open a file… (Ctrl+O)</source>
        <translation>打开文件…（Ctrl+O）</translation>
    </message>
    <message>
        <source>Paste (Ctrl+V)</source>
        <translation>粘贴（Ctrl+V）</translation>
    </message>
    <message>
        <source>Capture a part of the screen (Ctrl+Shift+S)</source>
        <translation>截取屏幕的一部分（Ctrl+Shift+S）</translation>
    </message>
    <message>
        <source>Recent pictures</source>
        <translation>最近的图片</translation>
    </message>
    <message>
        <source>Clear the list</source>
        <translation>清空列表</translation>
    </message>
    <message>
        <source>{file} no longer exists. It was removed from the recent pictures.</source>
        <translation>{file} 已不存在，已从最近的图片中移除。</translation>
    </message>
    <message>
        <source>Screenshot</source>
        <translation>屏幕截图</translation>
    </message>
    <message>
        <source>The desktop&apos;s screenshot dialog can&apos;t be opened. Use the desktop&apos;s own screenshot key, then paste here with Ctrl+V.</source>
        <translation>无法打开桌面的截图对话框。请用桌面自带的截图键，再用 Ctrl+V 粘贴到这里。</translation>
    </message>
    <message>
        <source>Reading the pictures…</source>
        <translation>正在读取图片…</translation>
    </message>
    <message>
        <source>Ask about the picture</source>
        <translation>就图片提问</translation>
    </message>
    <message>
        <source>Ask about this part</source>
        <translation>就这一部分提问</translation>
    </message>
    <message>
        <source>Ask about each of {count} parts</source>
        <translation>分别就 {count} 个部分提问</translation>
    </message>
    <message>
        <source>The demo model is not part of this installation.</source>
        <translation>此安装不包含演示模型。</translation>
    </message>
    <message>
        <source>This answer used the adapter {name}. Choose it at the top, then continue.</source>
        <translation>这个回答使用了适配器 {name}。请在顶部选择它，然后继续。</translation>
    </message>
    <message>
        <source>{model} can&apos;t be opened: {why}</source>
        <translation>无法打开 {model}：{why}</translation>
    </message>
    <message>
        <source>The adapter can&apos;t be used: {why}</source>
        <translation>无法使用该适配器：{why}</translation>
    </message>
    <message>
        <source>The model {model} is still used.</source>
        <translation>仍在使用模型 {model}。</translation>
    </message>
    <message>
        <source>The question was not asked. Remove the picture or choose another one.</source>
        <translation>问题没有发送。请移除这张图片，或选择另一张。</translation>
    </message>
    <message>
        <source>No question can be asked now. What you typed is kept in its place.</source>
        <translation>现在无法提问。您输入的内容已保留在原处。</translation>
    </message>
    <message>
        <source>No model is open. Choose one with the button at the top, then send again.</source>
        <translation>没有打开模型。请用上方的按钮选择一个，然后重新发送。</translation>
    </message>
    <message>
        <source>Save the table</source>
        <translation>保存表格</translation>
    </message>
    <message>
        <source>The table was saved as {file}.</source>
        <translation>表格已保存为 {file}。</translation>
    </message>
    <message>
        <source>The answer was stopped.</source>
        <translation>回答已停止。</translation>
    </message>
    <message>
        <source>The answer is complete: {text}</source>
        <translation>回答完成：{text}</translation>
    </message>
</context>
<context>
    <name>CodeBlock</name>
    <message>
        <source>Copy</source>
        <translation>复制</translation>
    </message>
    <message>
        <source>Copy the code</source>
        <translation>复制代码</translation>
    </message>
    <message>
        <source>Code</source>
        <translation>代码</translation>
    </message>
</context>
<context>
    <name>Command</name>
    <message>
        <source>The command ended without giving a reason.</source>
        <translation>命令结束了，但没有说明原因。</translation>
    </message>
    <message>
        <source>A batch, an evaluation or a training run is in progress. Wait until it ends, or cancel it first.</source>
        <translation>正在进行批量处理、评测或训练。请等它结束，或先取消它。</translation>
    </message>
    <message>
        <source>The model is still loading. Wait until it is ready.</source>
        <translation>模型仍在加载。请等它就绪。</translation>
    </message>
    <message>
        <source>Open a model first, on the Chat page.</source>
        <translation>请先在“对话”页打开一个模型。</translation>
    </message>
    <message>
        <source>The chat is still writing an answer. Stop it first.</source>
        <translation>“对话”页还在生成回答。请先停止它。</translation>
    </message>
</context>
<context>
    <name>Composer</name>
    <message>
        <source>Ask about the picture</source>
        <translation>就图片提问</translation>
    </message>
    <message>
        <source>Your question</source>
        <translation>你的问题</translation>
    </message>
    <message>
        <source>Add a picture</source>
        <translation>添加图片</translation>
    </message>
    <message>
        <source>What the engine is doing</source>
        <translation>引擎状态</translation>
    </message>
    <message>
        <source>Progress</source>
        <translation>进度</translation>
    </message>
    <message>
        <source>Waiting for the picture…</source>
        <translation>正在等待图片…</translation>
    </message>
    <message>
        <source>Waiting for the model. The question is asked when it is loaded.</source>
        <translation>正在等待模型。加载完成后会提出问题。</translation>
    </message>
    <message>
        <source>Ready</source>
        <translation>就绪</translation>
    </message>
    <message>
        <source>Loading the model…</source>
        <translation>正在加载模型…</translation>
    </message>
    <message>
        <source>The model is unloaded.</source>
        <translation>模型已卸载。</translation>
    </message>
    <message>
        <source>The engine has stopped.</source>
        <translation>引擎已停止。</translation>
    </message>
    <message>
        <source>No model is open.</source>
        <translation>没有打开的模型。</translation>
    </message>
    <message>
        <source>Stop (Esc)</source>
        <translation>停止 (Esc)</translation>
    </message>
    <message>
        <source>Send (Enter)</source>
        <translation>发送 (Enter)</translation>
    </message>
</context>
<context>
    <name>Convert</name>
    <message>
        <source>Convert a checkpoint</source>
        <translation>转换权重</translation>
    </message>
    <message>
        <source>Converts a downloaded CogVLM2 checkpoint (39 GB) to a 4-bit model (12 GB). The source is not changed. You can stop at any time and resume later.</source>
        <translation>把下载的 CogVLM2 权重 (39 GB) 转换为 4 位模型 (12 GB)。不会改动源文件。可随时停止，之后再继续。</translation>
    </message>
    <message>
        <source>Checkpoint folder</source>
        <translation>权重文件夹</translation>
    </message>
    <message>
        <source>Choose the checkpoint</source>
        <translation>选择权重</translation>
    </message>
    <message>
        <source>New folder</source>
        <translation>新文件夹</translation>
    </message>
    <message>
        <source>Choose the new folder</source>
        <translation>选择新文件夹</translation>
    </message>
    <message>
        <source>Calibration</source>
        <translation>校准</translation>
    </message>
    <message>
        <source>None: fast, rounds to nearest</source>
        <translation>无：快速，就近舍入</translation>
    </message>
    <message>
        <source>Built-in pictures: smaller error, takes longer</source>
        <translation>内置图片：误差更小，耗时较长</translation>
    </message>
    <message>
        <source>Start</source>
        <translation>开始</translation>
    </message>
    <message>
        <source>Pause</source>
        <translation>暂停</translation>
    </message>
    <message>
        <source>Open the new model</source>
        <translation>打开新模型</translation>
    </message>
    <message>
        <source>Progress</source>
        <translation>进度</translation>
    </message>
    <message>
        <source>Other folder…</source>
        <translation>其他文件夹……</translation>
    </message>
    <message>
        <source>Choose both folders first.</source>
        <translation>请先选择两个文件夹。</translation>
    </message>
    <message>
        <source>Reading the checkpoint…</source>
        <translation>正在读取权重…</translation>
    </message>
    <message>
        <source>Paused. Finished work is kept; start again to resume.</source>
        <translation>已暂停。已完成的部分会保留；再次开始会接着做。</translation>
    </message>
    <message>
        <source>{share:.0%} written, {left} left</source>
        <translation>已写入 {share:.0%}，剩余 {left}</translation>
    </message>
    <message>
        <source>Calibrated {done} of {total} blocks, {left} left. Error so far: {ratio:.2f} of round to nearest.</source>
        <translation>已校准 {done}/{total} 个模块，剩余 {left}。目前误差为就近舍入的 {ratio:.2f}。</translation>
    </message>
    <message>
        <source>Measured {done} of {total} blocks on held-out samples, {left} left</source>
        <translation>已在留出样本上测量 {done}/{total} 个模块，剩余 {left}</translation>
    </message>
    <message>
        <source>Finished: {folder}, {size}.</source>
        <translation>完成：{folder}，{size}。</translation>
    </message>
    <message>
        <source>Keep it, write to {folder}</source>
        <translation>保留它，写入 {folder}</translation>
    </message>
    <message>
        <source>{size} will be written; {free} is free on that disk.</source>
        <translation>将写入 {size}，该磁盘空闲 {free}。</translation>
    </message>
    <message>
        <source>The command ended without giving a reason.</source>
        <translation>命令结束了，但没有说明原因。</translation>
    </message>
    <message>
        <source>Start or resume</source>
        <translation>开始或继续</translation>
    </message>
    <message>
        <source>Choose…</source>
        <translation>选择…</translation>
    </message>
</context>
<context>
    <name>Copying</name>
    <message>
        <source>Copied</source>
        <translation>已复制</translation>
    </message>
</context>
<context>
    <name>Dates</name>
    <message>
        <source>Yesterday {time}</source>
        <translation>昨天 {time}</translation>
    </message>
    <message>
        <source>en</source>
        <comment>the code of this language, for dates</comment>
        <translation>zh_CN</translation>
    </message>
</context>
<context>
    <name>Drops</name>
    <message>
        <source>Drop the picture</source>
        <translation>放下图片</translation>
    </message>
</context>
<context>
    <name>EvaluatePage</name>
    <message>
        <source>Evaluate a model</source>
        <translation>评测模型</translation>
    </message>
    <message>
        <source>Every answer is saved at once. You can stop at any time; starting again asks only what is left.</source>
        <translation>每个回答都会立即保存。您可以随时停止；再次开始时只问剩下的问题。</translation>
    </message>
    <message>
        <source>Choose a benchmark first.</source>
        <translation>请先选择一个基准测试。</translation>
    </message>
    <message>
        <source>Reading the data files…</source>
        <translation>正在读取数据文件…</translation>
    </message>
    <message>
        <source>Pausing after the current questions.</source>
        <translation>当前问题答完后暂停。</translation>
    </message>
    <message>
        <source>{done} of {total} questions</source>
        <translation>已问 {total} 个问题中的 {done} 个</translation>
    </message>
    <message>
        <source>{count} failed</source>
        <translation>{count} 个失败</translation>
    </message>
    <message>
        <source>, </source>
        <translation>，</translation>
    </message>
    <message>
        <source>Open the report</source>
        <translation>打开报告</translation>
    </message>
    <message>
        <source>Asks the open model, with the adapter in use, the questions of benchmarks and scores its answers as their authors do. The data files must be on this computer; nothing is downloaded.</source>
        <translation>用正在使用的适配器，向已打开的模型提出基准测试中的问题，并按其作者的方法为回答评分。数据文件必须已在这台电脑上；不会下载任何内容。</translation>
    </message>
    <message>
        <source>Open the report about {benchmark}</source>
        <translation>打开 {benchmark} 的报告</translation>
    </message>
    <message>
        <source>{count} answered, no score yet</source>
        <translation>已回答 {count} 个，尚无分数</translation>
    </message>
    <message>
        <source>{count} answered, not graded (needs a GPT-4 judge)</source>
        <translation>已回答 {count} 个，未评分（需要 GPT-4 评判）</translation>
    </message>
    <message>
        <source>{hits} of {asked} right</source>
        <translation>{asked} 个中答对 {hits} 个</translation>
    </message>
    <message>
        <source>{value:.1f} points</source>
        <translation>{value:.1f} 分</translation>
    </message>
    <message>
        <source>95 % interval {low:.1f} % to {high:.1f} %</source>
        <translation>95 % 区间 {low:.1f} % 至 {high:.1f} %</translation>
    </message>
    <message>
        <source>95 % interval {low:.1f} to {high:.1f}</source>
        <translation>95 % 区间 {low:.1f} 至 {high:.1f}</translation>
    </message>
    <message>
        <source>{asked} of {of} questions</source>
        <translation>共 {of} 个问题，问了 {asked} 个</translation>
    </message>
    <message>
        <source>protocol {name}</source>
        <translation>协议 {name}</translation>
    </message>
    <message>
        <source>; </source>
        <translation>；</translation>
    </message>
    <message>
        <source>Published, protocol unknown: {numbers}</source>
        <translation>官方公布（协议未知）：{numbers}</translation>
    </message>
    <message>
        <source>{share:.1f} % of the answers have another text.</source>
        <translation>{share:.1f} % 的回答文本有变化。</translation>
    </message>
    <message>
        <source>Less than 1 point lost.</source>
        <translation>损失不到 1 分。</translation>
    </message>
    <message>
        <source>A loss is shown.</source>
        <translation>确有损失。</translation>
    </message>
    <message>
        <source>Not decided with {count} questions.</source>
        <translation>用 {count} 个问题无法判定。</translation>
    </message>
    <message>
        <source>About {count} questions would decide it.</source>
        <translation>大约需要 {count} 个问题才能判定。</translation>
    </message>
    <message>
        <source>Loss of {b} against {a}: {loss} points, 95 % interval {low} to {high}.</source>
        <translation>{b} 相对 {a} 的损失：{loss} 分，95 % 区间 {low} 至 {high}。</translation>
    </message>
</context>
<context>
    <name>EvaluationForm</name>
    <message>
        <source>Benchmarks</source>
        <translation>基准测试</translation>
    </message>
    <message>
        <source>Drawn pictures</source>
        <translation>绘制的图片</translation>
    </message>
    <message>
        <source>Data files</source>
        <translation>数据文件</translation>
    </message>
    <message>
        <source>Choose the data</source>
        <translation>选择数据</translation>
    </message>
    <message>
        <source>A data file…</source>
        <translation>一个数据文件…</translation>
    </message>
    <message>
        <source>A folder of data files…</source>
        <translation>存放数据文件的文件夹…</translation>
    </message>
    <message>
        <source>the usual folders</source>
        <translation>常用文件夹</translation>
    </message>
    <message>
        <source>Compare with</source>
        <translation>与之比较</translation>
    </message>
    <message>
        <source>Choose a second model or an earlier result</source>
        <translation>选择第二个模型或以前的结果</translation>
    </message>
    <message>
        <source>no other model</source>
        <translation>不比较</translation>
    </message>
    <message>
        <source>Results</source>
        <translation>结果</translation>
    </message>
    <message>
        <source>Choose the folder of the results</source>
        <translation>选择保存结果的文件夹</translation>
    </message>
    <message>
        <source>all</source>
        <translation>全部</translation>
    </message>
    <message>
        <source>Questions of each</source>
        <translation>每项的问题数</translation>
    </message>
    <message>
        <source>A larger number continues an earlier run of a smaller one</source>
        <translation>数目调大后，会接着以前较小数目的评测继续</translation>
    </message>
    <message>
        <source>Protocol</source>
        <translation>协议</translation>
    </message>
    <message>
        <source>How the questions are worded; scores of two protocols can&apos;t be compared</source>
        <translation>问题的措辞方式；不同协议的分数不能相互比较</translation>
    </message>
    <message>
        <source>Ask everything again</source>
        <translation>全部重新提问</translation>
    </message>
    <message>
        <source>The old answers are kept under another name</source>
        <translation>原来的回答会以另一个名称保留</translation>
    </message>
    <message>
        <source>Benchmark data</source>
        <translation>基准测试数据</translation>
    </message>
</context>
<context>
    <name>FullScreen</name>
    <message>
        <source>The picture on the whole screen</source>
        <translation>全屏显示的图片</translation>
    </message>
    <message>
        <source>The picture of this conversation</source>
        <translation>此对话的图片</translation>
    </message>
</context>
<context>
    <name>JobForm</name>
    <message>
        <source>Folder of pictures</source>
        <translation>图片文件夹</translation>
    </message>
    <message>
        <source>Choose the folder of the pictures</source>
        <translation>选择图片所在的文件夹</translation>
    </message>
    <message>
        <source>Question</source>
        <translation>问题</translation>
    </message>
    <message>
        <source>Question about each picture</source>
        <translation>对每张图片的问题</translation>
    </message>
    <message>
        <source>Asked about each picture</source>
        <translation>对每张图片提出</translation>
    </message>
    <message>
        <source>Folder for the answers</source>
        <translation>回答保存到</translation>
    </message>
    <message>
        <source>Choose the folder of the answers</source>
        <translation>选择保存回答的文件夹</translation>
    </message>
    <message>
        <source>same as the folder of pictures</source>
        <translation>与图片文件夹相同</translation>
    </message>
    <message>
        <source>answers.jsonl is always written to this folder; the next start resumes from it.</source>
        <translation>该文件夹中始终会写入 answers.jsonl，下次开始时从它继续。</translation>
    </message>
    <message>
        <source>Selected pictures only: {count}</source>
        <translation>只处理选定的图片：{count}</translation>
    </message>
    <message>
        <source>Include subfolders</source>
        <translation>包括子文件夹</translation>
    </message>
    <message>
        <source>A .txt file for each picture</source>
        <translation>每张图片一个 .txt 文件</translation>
    </message>
    <message>
        <source>One CSV table</source>
        <translation>一个 CSV 表格</translation>
    </message>
    <message>
        <source>Text before each answer</source>
        <translation>每个回答前的文字</translation>
    </message>
    <message>
        <source>Text after it</source>
        <translation>回答后的文字</translation>
    </message>
    <message>
        <source>In the .txt files only, for example a trigger word</source>
        <translation>仅用于 .txt 文件，例如触发词</translation>
    </message>
    <message>
        <source>Text files of your own</source>
        <translation>您自己的文本文件</translation>
    </message>
    <message>
        <source>What to do if a picture has a .txt file that this program did not write, or that was edited since</source>
        <translation>如果图片已有并非由本程序写入、或之后被编辑过的 .txt 文件，该如何处理</translation>
    </message>
    <message>
        <source>ask if there are any</source>
        <translation>如果有则询问</translation>
    </message>
    <message>
        <source>keep</source>
        <translation>保留</translation>
    </message>
    <message>
        <source>skip the picture</source>
        <translation>跳过该图片</translation>
    </message>
    <message>
        <source>add the answer at the end</source>
        <translation>在末尾添加回答</translation>
    </message>
    <message>
        <source>add the answer at the start</source>
        <translation>在开头添加回答</translation>
    </message>
    <message>
        <source>replace</source>
        <translation>替换</translation>
    </message>
    <message>
        <source>Ask again about answered pictures</source>
        <translation>重新询问已有回答的图片</translation>
    </message>
    <message>
        <source>Use the whole folder</source>
        <translation>处理整个文件夹</translation>
    </message>
    <message>
        <source>Choose…</source>
        <translation>选择…</translation>
    </message>
</context>
<context>
    <name>Keys</name>
    <message>
        <source>Send the question</source>
        <translation>发送问题</translation>
    </message>
    <message>
        <source>New line</source>
        <translation>换行</translation>
    </message>
    <message>
        <source>Stop the answer, or close a message</source>
        <translation>停止回答，或关闭消息</translation>
    </message>
    <message>
        <source>New conversation</source>
        <translation>新对话</translation>
    </message>
    <message>
        <source>Open a picture</source>
        <translation>打开图片</translation>
    </message>
    <message>
        <source>Capture a part of the screen</source>
        <translation>截取屏幕的一部分</translation>
    </message>
    <message>
        <source>Paste a picture or text</source>
        <translation>粘贴图片或文字</translation>
    </message>
    <message>
        <source>Answer again</source>
        <translation>重新回答</translation>
    </message>
    <message>
        <source>Copy the last answer</source>
        <translation>复制最后一个回答</translation>
    </message>
    <message>
        <source>Search in conversations</source>
        <translation>搜索对话</translation>
    </message>
    <message>
        <source>From the search to the list</source>
        <translation>从搜索框到列表</translation>
    </message>
    <message>
        <source>Go to the question field</source>
        <translation>转到问题框</translation>
    </message>
    <message>
        <source>Show a page</source>
        <translation>切换页面</translation>
    </message>
    <message>
        <source>Everywhere</source>
        <translation>所有页面</translation>
    </message>
    <message>
        <source>Larger or smaller text</source>
        <translation>放大或缩小文字</translation>
    </message>
    <message>
        <source>Text in its usual size</source>
        <translation>恢复默认字号</translation>
    </message>
    <message>
        <source>Settings</source>
        <translation>设置</translation>
    </message>
    <message>
        <source>Show these shortcuts</source>
        <translation>显示快捷键</translation>
    </message>
    <message>
        <source>Close a menu, settings or a question</source>
        <translation>关闭菜单、设置或提问</translation>
    </message>
    <message>
        <source>Quit</source>
        <translation>退出</translation>
    </message>
    <message>
        <source>Chat</source>
        <translation>对话</translation>
    </message>
    <message>
        <source>List of conversations</source>
        <translation>对话列表</translation>
    </message>
    <message>
        <source>Clear the search</source>
        <translation>清除搜索</translation>
    </message>
    <message>
        <source>Rename the conversation</source>
        <translation>重命名对话</translation>
    </message>
    <message>
        <source>Delete the conversation</source>
        <translation>删除对话</translation>
    </message>
    <message>
        <source>Restore the deleted conversation</source>
        <translation>恢复已删除的对话</translation>
    </message>
    <message>
        <source>The picture, after a click on it</source>
        <translation>图片（先点击图片）</translation>
    </message>
    <message>
        <source>Larger or smaller</source>
        <translation>放大或缩小</translation>
    </message>
    <message>
        <source>Fit the whole picture</source>
        <translation>适合窗口，显示整张图片</translation>
    </message>
    <message>
        <source>100 %: a pixel is a pixel of the screen</source>
        <translation>100 %：图片的一个像素就是屏幕的一个像素</translation>
    </message>
    <message>
        <source>Move the picture</source>
        <translation>移动图片</translation>
    </message>
    <message>
        <source>Up by a screen</source>
        <translation>向上一屏</translation>
    </message>
    <message>
        <source>Down by a screen</source>
        <translation>向下一屏</translation>
    </message>
    <message>
        <source>To the upper left corner, or to the lower edge</source>
        <translation>到左上角，或到下边缘</translation>
    </message>
    <message>
        <source>The whole screen, or back</source>
        <translation>进入或退出全屏</translation>
    </message>
    <message>
        <source>Begin a rectangle, to ask about a part</source>
        <translation>开始画矩形，以便就一部分提问</translation>
    </message>
    <message>
        <source>Move the rectangle; with Ctrl by one pixel</source>
        <translation>移动矩形；按住 Ctrl 每次移动一个像素</translation>
    </message>
    <message>
        <source>Change its size; with Ctrl by one pixel</source>
        <translation>改变矩形大小；按住 Ctrl 每次一个像素</translation>
    </message>
    <message>
        <source>Ask about the part in the rectangle</source>
        <translation>就矩形内的部分提问</translation>
    </message>
    <message>
        <source>Cancel the rectangle, or leave the whole screen</source>
        <translation>取消矩形，或退出全屏</translation>
    </message>
    <message>
        <source>While a part of the screen is captured</source>
        <translation>截取屏幕时</translation>
    </message>
    <message>
        <source>Capture the whole screen</source>
        <translation>截取整个屏幕</translation>
    </message>
    <message>
        <source>Cancel</source>
        <translation>取消</translation>
    </message>
    <message>
        <source>While a question or a batch answer is changed</source>
        <translation>修改问题或批处理答案时</translation>
    </message>
    <message>
        <source>Begin, in the table of answers</source>
        <translation>在答案表格中开始修改</translation>
    </message>
    <message>
        <source>Ask the changed question, or save the answer</source>
        <translation>提出修改后的问题，或保存答案</translation>
    </message>
    <message>
        <source>Leave it as it was</source>
        <translation>保持原样</translation>
    </message>
    <message>
        <source>Keyboard shortcuts</source>
        <translation>键盘快捷键</translation>
    </message>
</context>
<context>
    <name>LossCurve</name>
    <message>
        <source>Loss</source>
        <translation>损失</translation>
    </message>
    <message>
        <source>step</source>
        <translation>步</translation>
    </message>
    <message>
        <source>training</source>
        <translation>训练</translation>
    </message>
    <message>
        <source>held out</source>
        <translation>留出</translation>
    </message>
    <message>
        <source>The training loss is {loss:.3f} at step {step}.</source>
        <translation>第 {step} 步的训练损失为 {loss:.3f}。</translation>
    </message>
    <message>
        <source>The held-out loss is {loss:.3f} at step {step}.</source>
        <translation>第 {step} 步的留出损失为 {loss:.3f}。</translation>
    </message>
</context>
<context>
    <name>MainWindow</name>
    <message>
        <source>An answer is being written. Wait for it or stop it first.</source>
        <translation>正在生成回答。请等它完成，或先停止。</translation>
    </message>
    <message>
        <source>The adapter can&apos;t be used: {why}</source>
        <translation>无法使用该适配器：{why}</translation>
    </message>
    <message>
        <source>The model is opened without it.</source>
        <translation>将不使用它打开模型。</translation>
    </message>
    <message>
        <source>There is no picture on the clipboard.</source>
        <translation>剪贴板上没有图片。</translation>
    </message>
    <message>
        <source>This is not a picture.</source>
        <translation>拖入的内容不是图片。</translation>
    </message>
    <message>
        <source>Conversations are not saved</source>
        <translation>对话不会被保存</translation>
    </message>
    <message>
        <source>The window works, but conversations are lost when it is closed.</source>
        <translation>窗口可以使用，但关闭后对话会丢失。</translation>
    </message>
    <message>
        <source>The last answers are not on disk</source>
        <translation>最后的回答尚未写入磁盘</translation>
    </message>
    <message>
        <source>They could not be written: the disk may be full, or another program has locked the conversations file. Close the window and lose them?</source>
        <translation>无法写入：磁盘可能已满，或者另一个程序占用了对话文件。要关闭窗口并丢失它们吗？</translation>
    </message>
    <message>
        <source>Pages</source>
        <translation>页面</translation>
    </message>
</context>
<context>
    <name>Memory</name>
    <message>
        <source>Memory</source>
        <translation>内存</translation>
    </message>
    <message>
        <source>The plan in numbers</source>
        <translation>内存计划的数字</translation>
    </message>
    <message>
        <source>Video memory</source>
        <translation>显存</translation>
    </message>
    <message>
        <source>RAM, without a GPU</source>
        <translation>内存（不用 GPU）</translation>
    </message>
    <message>
        <source>Kind of memory to plan for</source>
        <translation>按哪种内存计划</translation>
    </message>
    <message>
        <source>Amount of memory to plan for</source>
        <translation>按多少内存计划</translation>
    </message>
    <message>
        <source>Use this budget</source>
        <translation>使用此限额</translation>
    </message>
    <message>
        <source>The first word about a new picture takes about {wait}; then the model writes about {rate} tokens per second.</source>
        <translation>对新图片提问后，约 {wait} 出现第一个词；之后每秒生成约 {rate} 个 token。</translation>
    </message>
    <message>
        <source>CogVLM2 19B in 4 bits</source>
        <translation>CogVLM2 19B(4 位)</translation>
    </message>
    <message>
        <source>Model to plan for</source>
        <translation>要规划的模型</translation>
    </message>
    <message>
        <source>Memory that is free now</source>
        <translation>当前空闲的内存</translation>
    </message>
    <message>
        <source>This model is planned without a download. To use it, open its folder first.</source>
        <translation>规划此模型不需要下载。要使用它，请先打开它的文件夹。</translation>
    </message>
    <message>
        <source>The model is working. Wait until it ends.</source>
        <translation>模型正在工作。请等它结束。</translation>
    </message>
    <message>
        <source>The model runs on the GPU of this computer: choose video memory.</source>
        <translation>模型在这台电脑的 GPU 上运行：请选择显存。</translation>
    </message>
    <message>
        <source>The model needs at least {least} of video memory.</source>
        <translation>模型至少需要 {least} 显存。</translation>
    </message>
    <message>
        <source>The GPU of this computer has {most}, so this plan is for another one.</source>
        <translation>这台电脑的 GPU 有 {most}，因此这是为另一块显卡做的规划。</translation>
    </message>
    <message>
        <source>This plan is for another computer.</source>
        <translation>这是为另一台电脑做的规划。</translation>
    </message>
    <message>
        <source>The model needs at least {least} of RAM.</source>
        <translation>模型至少需要 {least} 内存。</translation>
    </message>
    <message>
        <source>This computer has {most} of RAM, so this plan is for another one.</source>
        <translation>这台电脑有 {most} 内存，因此这是为另一台电脑做的规划。</translation>
    </message>
    <message>
        <source>{model} does not fit in this memory.</source>
        <translation>这样放不下 {model}。</translation>
    </message>
    <message>
        <source>{model} can&apos;t be planned.</source>
        <translation>无法规划 {model}。</translation>
    </message>
    <message>
        <source>The model&apos;s weights and buffers: {now} now, {most} at most.</source>
        <translation>模型的权重和缓冲区：现在 {now}，最多 {most}。</translation>
    </message>
    <message>
        <source>GPU of this computer: {names}.</source>
        <translation>这台电脑的 GPU：{names}。</translation>
    </message>
    <message>
        <source>This computer has no GPU that can be used: the model runs on the processor, in RAM.</source>
        <translation>这台电脑没有可用的 GPU：模型在处理器上运行，使用内存。</translation>
    </message>
    <message>
        <source>needs {peak} of {budget} of RAM</source>
        <translation>需要 {peak} 内存（可用 {budget}）</translation>
    </message>
    <message>
        <source>needs {peak} of {budget} on {device}</source>
        <translation>在 {device} 上需要 {peak}（可用 {budget}）</translation>
    </message>
    <message>
        <source>, </source>
        <translation>、</translation>
    </message>
    <message>
        <source>{parts} will be read from RAM</source>
        <translation>{parts}将从内存读入</translation>
    </message>
    <message>
        <source>{parts} will be read from disk</source>
        <translation>{parts}将从磁盘读入</translation>
    </message>
    <message>
        <source>; </source>
        <translation>；</translation>
    </message>
    <message>
        <source>{clauses}.</source>
        <translation>{clauses}。</translation>
    </message>
    <message>
        <source>vision tower</source>
        <translation>视觉塔</translation>
    </message>
    <message>
        <source>projector</source>
        <translation>投影层</translation>
    </message>
    <message>
        <source>vision expert</source>
        <translation>视觉专家</translation>
    </message>
    <message>
        <source>language expert</source>
        <translation>语言专家</translation>
    </message>
    <message>
        <source>decoder norms</source>
        <translation>解码器归一化层</translation>
    </message>
    <message>
        <source>embedding</source>
        <translation>词嵌入</translation>
    </message>
    <message>
        <source>lm_head</source>
        <translation>lm_head</translation>
    </message>
    <message>
        <source>key/value cache</source>
        <translation>键值缓存</translation>
    </message>
    <message>
        <source>activations</source>
        <translation>激活值</translation>
    </message>
    <message>
        <source>stream buffers</source>
        <translation>流式缓冲区</translation>
    </message>
    <message>
        <source>reserved for other phases</source>
        <translation>为其他阶段预留</translation>
    </message>
    <message>
        <source>looking at a picture</source>
        <translation>查看图片</translation>
    </message>
    <message>
        <source>reading the picture</source>
        <translation>读入图片</translation>
    </message>
    <message>
        <source>reading the question</source>
        <translation>读入问题</translation>
    </message>
    <message>
        <source>answering</source>
        <translation>回答</translation>
    </message>
    <message>
        <source>The plan as bars</source>
        <translation>以条形图表示的内存计划</translation>
    </message>
    <message>
        <source>hatched: streamed for each use</source>
        <translation>斜纹：每次使用时读入</translation>
    </message>
    <message>
        <source>{device}: {peak} at the peak, {budget} may be used</source>
        <translation>{device}：峰值 {peak}，可用 {budget}</translation>
    </message>
    <message>
        <source>RAM now</source>
        <translation>当前内存</translation>
    </message>
    <message>
        <source>RAM now: engine {engine}, other programs {others}, {free} of {total} free.</source>
        <translation>当前内存：引擎 {engine}，其他程序 {others}，空闲 {free}，共 {total}。</translation>
    </message>
</context>
<context>
    <name>Messages</name>
    <message>
        <source>The disk is full.</source>
        <translation>磁盘已满。</translation>
    </message>
    <message>
        <source>The folder of the conversations can&apos;t be written to.</source>
        <translation>无法写入对话所在的文件夹。</translation>
    </message>
    <message>
        <source>The file of the conversations can&apos;t be opened.</source>
        <translation>无法打开对话文件。</translation>
    </message>
    <message>
        <source>Close it and try again.</source>
        <translation>请关闭它后再试。</translation>
    </message>
    <message>
        <source>The file of the conversations is damaged.</source>
        <translation>对话文件已损坏。</translation>
    </message>
    <message>
        <source>The file of the conversations can&apos;t be read or written.</source>
        <translation>无法读写对话文件。</translation>
    </message>
    <message>
        <source>The conversations can&apos;t be read or written: {why}.</source>
        <translation>无法读写对话：{why}。</translation>
    </message>
    <message>
        <source>The picture of this conversation is damaged on disk.</source>
        <translation>这个对话的图片在磁盘上已损坏。</translation>
    </message>
    <message>
        <source>{file} in {folder} is a database of another program.</source>
        <translation>{folder} 中的 {file} 是另一个程序的数据库。</translation>
    </message>
    <message>
        <source>Move it away, then start the program again.</source>
        <translation>请将其移走，然后重新启动程序。</translation>
    </message>
    <message>
        <source>Install the newer version again. Nothing was changed.</source>
        <translation>请重新安装较新的版本。没有任何内容被改动。</translation>
    </message>
    <message>
        <source>The folder of the conversations can&apos;t be used: {why}.</source>
        <translation>无法使用对话所在的文件夹：{why}。</translation>
    </message>
    <message>
        <source>{file} can&apos;t be written: {why}.</source>
        <translation>无法写入 {file}：{why}。</translation>
    </message>
    <message>
        <source>Choose another place.</source>
        <translation>请选择其他位置。</translation>
    </message>
    <message>
        <source>The picture can&apos;t be read: its decoder crashed.</source>
        <translation>无法读取图片：解码程序崩溃了。</translation>
    </message>
    <message>
        <source>{file} can&apos;t be read: {why}.</source>
        <translation>无法读取 {file}：{why}。</translation>
    </message>
    <message>
        <source>There is no file {file!r}.</source>
        <translation>没有文件 {file!r}。</translation>
    </message>
    <message>
        <source>Check the spelling of the path.</source>
        <translation>请检查路径的拼写。</translation>
    </message>
    <message>
        <source>{file} needs more memory than is free ({width} x {height} pixels).</source>
        <translation>{file} 需要的内存超过空闲内存（{width} x {height} 像素）。</translation>
    </message>
    <message>
        <source>{file} is damaged: it starts as a {kind} picture of {width} x {height} pixels, but the rest can&apos;t be decoded.</source>
        <translation>{file} 已损坏：开头像是 {width} x {height} 像素的 {kind} 图片，但其余部分无法解码。</translation>
    </message>
    <message>
        <source>floating-point</source>
        <translation>浮点</translation>
    </message>
    <message>
        <source>32-bit</source>
        <translation> 32 位</translation>
    </message>
    <message>
        <source>{file} is damaged: it starts as a {kind} picture, but can&apos;t be decoded.</source>
        <translation>{file} 已损坏：开头像是 {kind} 图片，但无法解码。</translation>
    </message>
    <message>
        <source>The question has {count} tokens and the picture {picture}; the context has room for {context}, and the answer needs some of them.</source>
        <translation>问题有 {count} 个 token，图片有 {picture} 个；上下文只容纳 {context} 个，回答也要占一部分。</translation>
    </message>
    <message>
        <source>The question has {count} tokens; the context has room for {context}, and the answer needs some of them.</source>
        <translation>问题有 {count} 个 token；上下文只容纳 {context} 个，回答也要占一部分。</translation>
    </message>
    <message>
        <source>Shorten the question, or plan for a longer context (at most {most} tokens).</source>
        <translation>请缩短问题，或使用更长的上下文（最多 {most} 个 token）。</translation>
    </message>
    <message>
        <source>Unknown prompt template {name!r}.</source>
        <translation>未知提示模板 {name!r}。</translation>
    </message>
    <message>
        <source>Choose one of {names}.</source>
        <translation>请选择以下之一：{names}。</translation>
    </message>
    <message>
        <source>{file} is not a byte-level BPE tokenizer, which CogVLM2 needs.</source>
        <translation>{file} 不是 CogVLM2 所需的字节级 BPE 分词器。</translation>
    </message>
    <message>
        <source>Copy tokenizer.json from the original checkpoint into the folder.</source>
        <translation>请从原始模型中把 tokenizer.json 复制到该文件夹。</translation>
    </message>
    <message>
        <source>{file} can&apos;t be used: {why}.</source>
        <translation>无法使用 {file}：{why}。</translation>
    </message>
    <message>
        <source>Copy {name} again from the source.</source>
        <translation>请从来源重新复制 {name}。</translation>
    </message>
    <message>
        <source>{value} for {option} is more than any computer has.</source>
        <translation>{option} 的 {value} 超过任何电脑所有的内存。</translation>
    </message>
    <message>
        <source>{size} for {option} is too small for any plan.</source>
        <translation>{option} 的 {size} 太小，无法作任何计划。</translation>
    </message>
    <message>
        <source>{size} is allowed, but only {free} is free on {device}; the plan uses what is free.</source>
        <translation>允许使用 {size}，但{device}只有 {free} 空闲；计划只使用空闲部分。</translation>
    </message>
    <message>
        <source>--vram has {given} sizes, but the number of usable GPUs is {count}.</source>
        <translation>--vram 有 {given} 个大小，但可用的 GPU 有 {count} 个。</translation>
    </message>
    <message>
        <source>Give one size for all GPUs, or one for each.</source>
        <translation>请给出一个适用于所有 GPU 的大小，或每个 GPU 各一个。</translation>
    </message>
    <message>
        <source>A context of {context} tokens is not possible; the model supports at most {most}.</source>
        <translation>上下文不能是 {context} 个 token；模型最多支持 {most} 个。</translation>
    </message>
    <message>
        <source>Give a number from {least} (a picture and a few questions) to {most}.</source>
        <translation>请给出 {least}（一张图片和几个问题）到 {most} 之间的数。</translation>
    </message>
    <message>
        <source>{value!r} is not a size for {option}.</source>
        <translation>{value!r} 不是 {option} 可用的大小。</translation>
    </message>
    <message>
        <source>Did you mean {value}GiB?</source>
        <translation>您是指 {value}GiB 吗？</translation>
    </message>
    <message>
        <source>this computer</source>
        <translation>这台电脑</translation>
    </message>
    <message>
        <source>{size} given, {reserve} left for other programs</source>
        <translation>给定 {size}，{reserve} 留给其他程序</translation>
    </message>
    <message>
        <source>{size} free now, {reserve} left for other programs</source>
        <translation>现有空闲 {size}，{reserve} 留给其他程序</translation>
    </message>
    <message>
        <source>{size} given, {reserve} left for the driver and other programs</source>
        <translation>给定 {size}，{reserve} 留给驱动和其他程序</translation>
    </message>
    <message>
        <source>{size} free now, {reserve} left for the driver and other programs</source>
        <translation>现有空闲 {size}，{reserve} 留给驱动和其他程序</translation>
    </message>
    <message>
        <source>Memory suffices for {count} conversations at once, not for {wanted}: each takes {size} of key/value cache. A shorter --context makes them smaller.</source>
        <translation>内存只够同时进行 {count} 个对话，不够 {wanted} 个：每个需要 {size} 键值缓存。较短的 --context 会使其变小。</translation>
    </message>
    <message>
        <source>Memory suffices for one conversation at once, not for {wanted}: each takes {size} of key/value cache. A shorter --context makes them smaller.</source>
        <translation>内存只够同时进行一个对话，不够 {wanted} 个：每个需要 {size} 键值缓存。较短的 --context 会使其变小。</translation>
    </message>
    <message>
        <source>The whole model needs {least} on {device}, where {usable}, and --offload is never.</source>
        <translation>整个模型在 {device} 上需要 {least}，{usable}，而 --offload 为 never。</translation>
    </message>
    <message>
        <source>Leave --offload at auto: the answers are the same, but slower.</source>
        <translation>请让 --offload 保持 auto：回答相同，只是更慢。</translation>
    </message>
    <message>
        <source>{size} can be used ({origin})</source>
        <translation>可用 {size}（{origin}）</translation>
    </message>
    <message>
        <source>{phase} needs at least {least} on {device}, where {usable}: {missing} more is needed.</source>
        <translation>{phase}在 {device} 上至少需要 {least}，{usable}：还差 {missing}。</translation>
    </message>
    <message>
        <source>Close other programs, allow more memory, or use another device.</source>
        <translation>请关闭其他程序，允许使用更多内存，或使用其他设备。</translation>
    </message>
    <message>
        <source>A context of {context} tokens would fit: --context {context}.</source>
        <translation>{context} 个 token 的上下文放得下：--context {context}。</translation>
    </message>
    <message>
        <source>{size} can be used</source>
        <translation>可用 {size}</translation>
    </message>
    <message>
        <source>There is no folder or file {file}.</source>
        <translation>没有文件夹或文件 {file}。</translation>
    </message>
    <message>
        <source>Use a folder of pictures, or a .jsonl file of objects with image, question and answer.</source>
        <translation>请指定图片文件夹，或由含 image、question 和 answer 的对象组成的 .jsonl 文件。</translation>
    </message>
    <message>
        <source>{file} has no samples.</source>
        <translation>{file} 中没有样本。</translation>
    </message>
    <message>
        <source>Use at least eight samples.</source>
        <translation>请至少给出八个样本。</translation>
    </message>
    <message>
        <source>Use the folder that directly contains them; subfolders are not searched.</source>
        <translation>请指定直接包含它们的文件夹；不会搜索子文件夹。</translation>
    </message>
    <message>
        <source>{where} is not an object with question and, if needed, image and answer.</source>
        <translation>{where} 不是带有 question 以及可选的 image 和 answer 的对象。</translation>
    </message>
    <message>
        <source>Like {example}.</source>
        <translation>例如 {example}。</translation>
    </message>
    <message>
        <source>image, question and answer must be strings in {where}.</source>
        <translation>{where} 中的 image、question 和 answer 必须是字符串。</translation>
    </message>
    <message>
        <source>{file} can&apos;t be read as text: {why}.</source>
        <translation>无法把 {file} 作为文本读取：{why}。</translation>
    </message>
    <message>
        <source>{where} is not JSON: {why}.</source>
        <translation>{where} 不是 JSON：{why}。</translation>
    </message>
    <message>
        <source>{param} must be {least} or more, not {value}.</source>
        <translation>{param} 必须是 {least} 或更大，而不是 {value}。</translation>
    </message>
    <message>
        <source>{param} must be between {least} and {most}, not {value}.</source>
        <translation>{param} 必须在 {least} 到 {most} 之间，而不是 {value}。</translation>
    </message>
    <message>
        <source>{param} must be above 0 and at most {most}, not {value}.</source>
        <translation>{param} 必须大于 0 且不超过 {most}，而不是 {value}。</translation>
    </message>
    <message>
        <source>A stop text must not be empty.</source>
        <translation>停止文本不能为空。</translation>
    </message>
    <message>
        <source>The model can&apos;t answer; the server&apos;s log has the reason.</source>
        <translation>模型无法回答；原因见服务器日志。</translation>
    </message>
    <message>
        <source>The request has more than {most}.</source>
        <translation>请求超过 {most}。</translation>
    </message>
    <message>
        <source>Internal server error; the server&apos;s log has the details.</source>
        <translation>服务器内部错误；详情见服务器日志。</translation>
    </message>
    <message>
        <source>The Content-Type must be application/json.</source>
        <translation>Content-Type 必须是 application/json。</translation>
    </message>
    <message>
        <source>This page does not allow that method.</source>
        <translation>此页面不允许该方法。</translation>
    </message>
    <message>
        <source>The model is not loaded.</source>
        <translation>模型没有加载。</translation>
    </message>
    <message>
        <source>The request took more than {seconds:g} s.</source>
        <translation>请求用时超过 {seconds:g} 秒。</translation>
    </message>
    <message>
        <source>a number with very many digits</source>
        <translation>位数极多的数</translation>
    </message>
    <message>
        <source>Unknown field {param}.</source>
        <translation>未知字段 {param}。</translation>
    </message>
    <message>
        <source>an object</source>
        <translation>对象</translation>
    </message>
    <message>
        <source>Unknown field {param}; did you mean {name}?</source>
        <translation>未知字段 {param}；您是指 {name} 吗？</translation>
    </message>
    <message>
        <source>On {host} other machines could use the model, but there is no API key.</source>
        <translation>在 {host} 上其他电脑也能使用模型，但没有给出 API 密钥。</translation>
    </message>
    <message>
        <source>Add one with --api-key-file, or use --host 127.0.0.1.</source>
        <translation>请用 --api-key-file 给出一个，或继续使用 --host 127.0.0.1。</translation>
    </message>
    <message>
        <source>The API key must have at least 16 characters, all of them printable ASCII.</source>
        <translation>API 密钥必须有 16 个或更多的普通字母、数字或符号。</translation>
    </message>
    <message>
        <source>Make one: python -c &quot;import secrets; print(secrets.token_urlsafe(32))&quot;</source>
        <translation>生成一个：python -c &quot;import secrets; print(secrets.token_urlsafe(32))&quot;</translation>
    </message>
    <message>
        <source>This server does not answer under that host name.</source>
        <translation>此服务器不以该主机名提供服务。</translation>
    </message>
    <message>
        <source>Pages of other websites may not use this server.</source>
        <translation>其他网站的页面不能使用此服务器。</translation>
    </message>
    <message>
        <source>The API key is missing or wrong.</source>
        <translation>API 密钥缺失或错误。</translation>
    </message>
    <message>
        <source>{origin!r} is not an origin.</source>
        <translation>{origin!r} 不是来源（origin）。</translation>
    </message>
    <message>
        <source>Write it like http://localhost:3000.</source>
        <translation>请写成 http://localhost:3000 的形式。</translation>
    </message>
    <message>
        <source>The texts have more than {most} characters.</source>
        <translation>文本超过 {most} 个字符。</translation>
    </message>
    <message>
        <source>{param} must begin with data:image/...;base64, or https://.</source>
        <translation>{param} 必须以 data:image/...;base64, 或 https:// 开头。</translation>
    </message>
    <message>
        <source>{param} has no bytes after the comma.</source>
        <translation>{param} 的逗号之后没有字节。</translation>
    </message>
    <message>
        <source>{param} must end with a message of the user, the question.</source>
        <translation>{param} 必须以用户的消息（即问题）结尾。</translation>
    </message>
    <message>
        <source>{param} ends with an empty question.</source>
        <translation>{param} 以空的问题结尾。</translation>
    </message>
    <message>
        <source>{param} is an answer without a question before it.</source>
        <translation>{param} 是回答，但前面没有问题。</translation>
    </message>
    <message>
        <source>{param} has two different pictures, but the model takes one per conversation: ask about each in a separate conversation.</source>
        <translation>{param} 有两张不同的图片，而模型每个对话只接受一张：请在不同的对话中分别询问。</translation>
    </message>
    <message>
        <source>{param} has more than {most} characters.</source>
        <translation>{param} 超过 {most} 个字符。</translation>
    </message>
    <message>
        <source>The picture has {size}, more than {most}.</source>
        <translation>图片大小为 {size}，超过 {most}。</translation>
    </message>
    <message>
        <source>{param} has no valid base64 after the comma.</source>
        <translation>{param} 的逗号之后不是有效的 base64。</translation>
    </message>
    <message>
        <source>The picture&apos;s address redirects more than {most} times.</source>
        <translation>图片地址的重定向超过 {most} 次。</translation>
    </message>
    <message>
        <source>Opening the picture&apos;s address took more than {seconds:g} s.</source>
        <translation>打开图片地址用时超过 {seconds:g} 秒。</translation>
    </message>
    <message>
        <source>The picture&apos;s address must begin with http:// or https:// and a name.</source>
        <translation>图片地址必须以 http:// 或 https:// 加主机名开头。</translation>
    </message>
    <message>
        <source>The picture&apos;s address must not contain a user name or a password.</source>
        <translation>图片地址不能包含用户名或密码。</translation>
    </message>
    <message>
        <source>The picture&apos;s address is not a public address.</source>
        <translation>图片地址不是公共地址。</translation>
    </message>
    <message>
        <source>The picture&apos;s address returns no picture but HTTP status {status}.</source>
        <translation>图片地址返回的不是图片，而是 HTTP 状态 {status}。</translation>
    </message>
    <message>
        <source>The picture&apos;s address returns a compressed file.</source>
        <translation>图片地址返回的是压缩文件。</translation>
    </message>
    <message>
        <source>The file at the picture&apos;s address was cut off.</source>
        <translation>图片地址处的文件不完整。</translation>
    </message>
    <message>
        <source>The picture has more than {most}.</source>
        <translation>图片超过 {most}。</translation>
    </message>
    <message>
        <source>The picture&apos;s address is not valid.</source>
        <translation>图片地址无效。</translation>
    </message>
    <message>
        <source>The host name of the picture&apos;s address is not valid.</source>
        <translation>图片地址的主机名无法用 DNS 表示。</translation>
    </message>
    <message>
        <source>The picture&apos;s address redirects from https to http.</source>
        <translation>图片地址从 https 重定向到 http。</translation>
    </message>
    <message>
        <source>The picture&apos;s address can&apos;t be opened.</source>
        <translation>无法打开图片地址。</translation>
    </message>
    <message>
        <source>The picture&apos;s address redirects without a target.</source>
        <translation>图片地址的重定向没有目标。</translation>
    </message>
    <message>
        <source>The picture&apos;s address redirects to an invalid address.</source>
        <translation>图片地址重定向到无效的地址。</translation>
    </message>
    <message>
        <source>The certificate of the picture&apos;s address is not valid.</source>
        <translation>图片地址的证书无效。</translation>
    </message>
    <message>
        <source>{count} requests are already waiting.</source>
        <translation>已有 {count} 个请求在等待。</translation>
    </message>
    <message>
        <source>The body of the request must be a JSON object.</source>
        <translation>请求的正文必须是 JSON 对象。</translation>
    </message>
    <message>
        <source>{param} needs {option} as well.</source>
        <translation>{param} 还需要 {option}。</translation>
    </message>
    <message>
        <source>The text has {count} characters, more than {most}: no context is that long.</source>
        <translation>文本有 {count} 个字符，超过 {most}：没有这么长的上下文。</translation>
    </message>
    <message>
        <source>The server can&apos;t listen on {host}, port {port}: {why}.</source>
        <translation>服务器无法监听 {host} 的端口 {port}：{why}。</translation>
    </message>
    <message>
        <source>{count} {kind} file needs {package}</source>
        <translation>{count} 个 {kind} 文件需要 {package}</translation>
    </message>
    <message>
        <source>{count} {kind} file can&apos;t be opened</source>
        <translation>{count} 个 {kind} 文件无法打开</translation>
    </message>
    <message>
        <source>{count} {kind} files need {package}</source>
        <translation>{count} 个 {kind} 文件需要 {package}</translation>
    </message>
    <message>
        <source>{count} {kind} files can&apos;t be opened</source>
        <translation>{count} 个 {kind} 文件无法打开</translation>
    </message>
    <message>
        <source>Left out: {files}.</source>
        <translation>未包括：{files}。</translation>
    </message>
    <message>
        <source>folders that can&apos;t be read: {count}</source>
        <translation>无法读取的文件夹：{count} 个</translation>
    </message>
    <message>
        <source>{folder} can&apos;t be read: {why}.</source>
        <translation>无法读取 {folder}：{why}。</translation>
    </message>
    <message>
        <source>Check the permissions of the folder.</source>
        <translation>请检查该文件夹的权限。</translation>
    </message>
    <message>
        <source>{count} for another question</source>
        <translation>{count} 张因为问题不同</translation>
    </message>
    <message>
        <source>{count} for another model</source>
        <translation>{count} 张因为模型不同</translation>
    </message>
    <message>
        <source>{count} for other settings</source>
        <translation>{count} 张因为设置不同</translation>
    </message>
    <message>
        <source>{count} whose picture has changed</source>
        <translation>{count} 张因为图片已改变</translation>
    </message>
    <message>
        <source>They are kept; their answers are in answers.jsonl.</source>
        <translation>这些文件会保留；相应的回答在 answers.jsonl 中。</translation>
    </message>
    <message>
        <source>Their pictures are skipped.</source>
        <translation>相应的图片会跳过。</translation>
    </message>
    <message>
        <source>The answers are added at their end.</source>
        <translation>回答会添加到文件末尾。</translation>
    </message>
    <message>
        <source>The answers are added at their start.</source>
        <translation>回答会添加到文件开头。</translation>
    </message>
    <message>
        <source>They are replaced.</source>
        <translation>这些文件会被替换。</translation>
    </message>
    <message>
        <source>{file} was not written by this program, or was edited since. It is kept, and the table is written to {other}.</source>
        <translation>{file} 不是由本程序写入的，或之后被编辑过。该文件会保留，表格写入 {other}。</translation>
    </message>
    <message>
        <source>Already answered: {count}.</source>
        <translation>已有回答：{count} 张。</translation>
    </message>
    <message>
        <source>Asked again: {reasons}.</source>
        <translation>重新询问：{reasons}。</translation>
    </message>
    <message>
        <source>Text files that this program did not write, or that were edited since: {count}. {what}</source>
        <translation>并非由本程序写入、或之后被编辑过的文本文件：{count} 个。{what}</translation>
    </message>
    <message>
        <source>Text files with earlier answers of this program: {count}. They are replaced.</source>
        <translation>含有本程序先前回答的文本文件：{count} 个，会被替换。</translation>
    </message>
    <message>
        <source>Text files written from saved answers, without the model: {count}.</source>
        <translation>无需模型、根据已保存的回答写入的文本文件：{count} 个。</translation>
    </message>
    <message>
        <source>{file} was changed by another program during this run.</source>
        <translation>运行期间，{file} 被其他程序更改。</translation>
    </message>
    <message>
        <source>Run the same command again; saved answers are kept.</source>
        <translation>请再次运行同一命令；已保存的回答会保留。</translation>
    </message>
    <message>
        <source>The answer repeated itself.</source>
        <translation>回答不断重复。</translation>
    </message>
    <message>
        <source>The answer is empty.</source>
        <translation>回答为空。</translation>
    </message>
    <message>
        <source>The answer repeated itself, and so did a second one with sampling.</source>
        <translation>回答不断重复，用采样方式再次回答时也是如此。</translation>
    </message>
    <message>
        <source>it is not text</source>
        <translation>它不是文本</translation>
    </message>
    <message>
        <source>Choose a file such as report.html in a folder that exists.</source>
        <translation>请在已有的文件夹中指定文件，例如 report.html。</translation>
    </message>
    <message>
        <source>{file} already exists. This program did not write it, or it was edited since.</source>
        <translation>{file} 已存在。它不是由本程序写入的，或之后被编辑过。</translation>
    </message>
    <message>
        <source>Use only --api-key-file.</source>
        <translation>请只使用 --api-key-file。</translation>
    </message>
    <message>
        <source>Choose a page from 1 to {pages}.</source>
        <translation>请选择 1 到 {pages} 之间的页码。</translation>
    </message>
    <message>
        <source>This is page 1 of {pages}; the others were not read.</source>
        <translation>这是共 {pages} 页中的第 1 页;其他页没有读取。</translation>
    </message>
    <message>
        <source>The picture has a high dynamic range; its brightness is an approximation.</source>
        <translation>图片是高动态范围图片;其亮度只是近似值。</translation>
    </message>
    <message>
        <source>The file ends early: details of the picture may be missing.</source>
        <translation>文件提前结束:图片的细节可能缺失。</translation>
    </message>
    <message>
        <source>lossless compression</source>
        <translation>无损压缩</translation>
    </message>
    <message>
        <source>hierarchical compression</source>
        <translation>分层压缩</translation>
    </message>
    <message>
        <source>lossless compression (JPEG-LS)</source>
        <translation>无损压缩(JPEG-LS)</translation>
    </message>
    <message>
        <source>compression {name}</source>
        <translation>{name} 压缩</translation>
    </message>
    <message>
        <source>{bits} bits per sample</source>
        <translation>每个样本 {bits} 位</translation>
    </message>
    <message>
        <source>Run: pip install &quot;cogvlm2-lite[heic]&quot;, or save it as JPEG or PNG.</source>
        <translation>请运行:pip install &quot;cogvlm2-lite[heic]&quot;,或者将其另存为 JPEG 或 PNG。</translation>
    </message>
    <message>
        <source>Run: pip install --upgrade pillow, or save it as JPEG or PNG.</source>
        <translation>请运行:pip install --upgrade pillow,或者将其另存为 JPEG 或 PNG。</translation>
    </message>
    <message>
        <source>{file} is damaged: it is a {kind} picture that should have at least {needed}, but has {size}.</source>
        <translation>{file} 已损坏:这张 {kind} 图片至少应有 {needed},但只有 {size}。</translation>
    </message>
    <message>
        <source>{file} is a {kind} picture with {variant}, which this program does not read.</source>
        <translation>{file} 是{variant}的 {kind} 图片,本程序无法读取。</translation>
    </message>
    <message>
        <source>{file} is a picture in {kind}, and the package that reads them, {package}, is not installed with this ability.</source>
        <translation>{file} 是 {kind} 图片,而读取它所需的软件包 {package} 没有安装或不支持该格式。</translation>
    </message>
    <message>
        <source>Open a JPEG, PNG, WebP, BMP, GIF, TIFF or AVIF picture.</source>
        <translation>请打开 JPEG、PNG、WebP、BMP、GIF、TIFF 或 AVIF 图片。</translation>
    </message>
    <message>
        <source>a raw camera picture</source>
        <translation>相机原始格式(RAW)图片</translation>
    </message>
    <message>
        <source>a JPEG XR picture</source>
        <translation>JPEG XR 图片</translation>
    </message>
    <message>
        <source>a Netpbm picture</source>
        <translation>Netpbm 图片</translation>
    </message>
    <message>
        <source>an OpenEXR picture</source>
        <translation>OpenEXR 图片</translation>
    </message>
    <message>
        <source>a Radiance HDR picture</source>
        <translation>Radiance HDR 图片</translation>
    </message>
    <message>
        <source>a DjVu document</source>
        <translation>DjVu 文档</translation>
    </message>
    <message>
        <source>a GIMP picture</source>
        <translation>GIMP 图片</translation>
    </message>
    <message>
        <source>raw camera data</source>
        <translation>相机原始数据</translation>
    </message>
    <message>
        <source>other inks than CMYK</source>
        <translation>CMYK 以外的油墨</translation>
    </message>
    <message>
        <source>predictor {number}</source>
        <translation>预测器 {number}</translation>
    </message>
    <message>
        <source>predictor {number} and {bits} bits</source>
        <translation>预测器 {number} 和 {bits} 位</translation>
    </message>
    <message>
        <source>strips or tiles of more than 1 GiB</source>
        <translation>超过 1 GiB 的条带或图块</translation>
    </message>
    <message>
        <source>colors of type {model}</source>
        <translation>{model} 类型的颜色</translation>
    </message>
    <message>
        <source>samples of different types</source>
        <translation>不同类型的样本</translation>
    </message>
    <message>
        <source>complex numbers</source>
        <translation>复数</translation>
    </message>
    <message>
        <source>YCbCr colors in this form</source>
        <translation>这种形式的 YCbCr 颜色</translation>
    </message>
    <message>
        <source>{bits}-bit samples whose black and white are unknown</source>
        <translation>黑白范围未知的 {bits} 位样本</translation>
    </message>
    <message>
        <source>The picture has one color only, so there is nothing to see.</source>
        <translation>图片只有一种颜色,因此看不到任何内容。</translation>
    </message>
    <message>
        <source>The picture is {ratio} times as tall as wide. The model sees it squashed to a square, so small text may be unreadable.</source>
        <translation>图片的高度是宽度的 {ratio} 倍。模型看到的是压成正方形的图片,小字可能无法辨认。</translation>
    </message>
    <message>
        <source>The picture is {ratio} times as wide as tall. The model sees it squashed to a square, so small text may be unreadable.</source>
        <translation>图片的宽度是高度的 {ratio} 倍。模型看到的是压成正方形的图片,小字可能无法辨认。</translation>
    </message>
    <message>
        <source>Every pixel of the picture is transparent, so there is nothing to see.</source>
        <translation>图片的所有像素都是透明的,因此看不到任何内容。</translation>
    </message>
    <message>
        <source>The picture has light parts on a transparent ground; it is shown on grey.</source>
        <translation>图片在透明背景上有浅色部分;已显示在灰色背景上。</translation>
    </message>
    <message>
        <source>The picture is light on a transparent ground; it is shown on black.</source>
        <translation>图片是透明背景上的浅色内容;已显示在黑色背景上。</translation>
    </message>
    <message>
        <source>The memory plan does not match the weights: {unit} has {filled} bytes, planned were {planned}.</source>
        <translation>内存计划与权重不符：{unit} 有 {filled} 字节，计划为 {planned} 字节。</translation>
    </message>
    <message>
        <source>If the model folder was changed while it was in use, load it again. If not, please report this.</source>
        <translation>如果模型文件夹在使用期间被更改，请重新加载。否则请报告此问题。</translation>
    </message>
    <message>
        <source>Choose another --port; 0 picks a free one.</source>
        <translation>请给出其他 --port；0 表示任意空闲端口。</translation>
    </message>
    <message>
        <source>The conversation is too long for it by its oldest turns ({count}). Leave them out, or send {option} to let the server do so.</source>
        <translation>对话太长，最早的几轮（{count}）超出了上下文。请去掉它们，或发送 {option} 让服务器来做。</translation>
    </message>
    <message>
        <source>The waiting requests already use too much memory.</source>
        <translation>等待中的请求已占用过多内存。</translation>
    </message>
    <message>
        <source>The model is loading.</source>
        <translation>正在加载模型。</translation>
    </message>
    <message>
        <source>The server is shutting down.</source>
        <translation>服务器正在关闭。</translation>
    </message>
    <message>
        <source>It is being restarted.</source>
        <translation>正在重新启动它。</translation>
    </message>
    <message>
        <source>is not supported by this server</source>
        <translation>不受此服务器支持</translation>
    </message>
    <message>
        <source>a whole number</source>
        <translation>整数</translation>
    </message>
    <message>
        <source>a whole number of {least} or more</source>
        <translation>{least} 或更大的整数</translation>
    </message>
    <message>
        <source>a whole number above {least} and at most {most}</source>
        <translation>大于 {least} 且不超过 {most} 的整数</translation>
    </message>
    <message>
        <source>a whole number between {least} and {most}</source>
        <translation>{least} 到 {most} 之间的整数</translation>
    </message>
    <message>
        <source>a number</source>
        <translation>数</translation>
    </message>
    <message>
        <source>a number of {least} or more</source>
        <translation>{least} 或更大的数</translation>
    </message>
    <message>
        <source>a number above {least} and at most {most}</source>
        <translation>大于 {least} 且不超过 {most} 的数</translation>
    </message>
    <message>
        <source>a number between {least} and {most}</source>
        <translation>{least} 到 {most} 之间的数</translation>
    </message>
    <message>
        <source>a string of {least} or more characters</source>
        <translation>{least} 个或更多字符的字符串</translation>
    </message>
    <message>
        <source>a string of up to {most} characters</source>
        <translation>最多 {most} 个字符的字符串</translation>
    </message>
    <message>
        <source>a string of exactly {most} characters</source>
        <translation>恰好 {most} 个字符的字符串</translation>
    </message>
    <message>
        <source>a string of {least} to {most} characters</source>
        <translation>{least} 到 {most} 个字符的字符串</translation>
    </message>
    <message>
        <source>a list of any number of items, each {item}</source>
        <translation>任意多项的列表，每项为{item}</translation>
    </message>
    <message>
        <source>a list of {least} or more items, each {item}</source>
        <translation>{least} 项或更多的列表，每项为{item}</translation>
    </message>
    <message>
        <source>a list of up to {most} items, each {item}</source>
        <translation>最多 {most} 项的列表，每项为{item}</translation>
    </message>
    <message>
        <source>a list of exactly {most} items, each {item}</source>
        <translation>恰好 {most} 项的列表，每项为{item}</translation>
    </message>
    <message>
        <source>a list of {least} to {most} items, each {item}</source>
        <translation>{least} 到 {most} 项的列表，每项为{item}</translation>
    </message>
    <message>
        <source>{param} is missing: it must be {expected}.</source>
        <translation>缺少 {param}：它必须是 {expected}。</translation>
    </message>
    <message>
        <source>{names} or {last}</source>
        <translation>{names} 或 {last}</translation>
    </message>
    <message>
        <source>The request has text that is not valid Unicode.</source>
        <translation>请求中有无效的 Unicode 文本。</translation>
    </message>
    <message>
        <source>an object with a {name}</source>
        <translation>带有 {name} 的对象</translation>
    </message>
    <message>
        <source>true or false</source>
        <translation>true 或 false</translation>
    </message>
    <message>
        <source>a list of {count}</source>
        <translation>{count} 项的列表</translation>
    </message>
    <message>
        <source>an empty list</source>
        <translation>空列表</translation>
    </message>
    <message>
        <source>{value!r} is not a size.</source>
        <translation>{value!r} 不是大小。</translation>
    </message>
    <message>
        <source>Write it like 8GiB, 512MiB or 16GB.</source>
        <translation>请写成 8GiB、512MiB 或 16GB 的形式。</translation>
    </message>
    <message>
        <source>{folder} has no safetensors weights.</source>
        <translation>{folder} 中没有 safetensors 权重。</translation>
    </message>
    <message>
        <source>{tensor} comes with {names}, but without a quant_state that says how it was quantized.</source>
        <translation>{tensor} 带有 {names}，但没有说明其量化方式的 quant_state。</translation>
    </message>
    <message>
        <source>Only 4-bit weights in the layout of transformers with bitsandbytes can be read.</source>
        <translation>只能读取 transformers 与 bitsandbytes 布局的 4 位权重。</translation>
    </message>
    <message>
        <source>{folder} has {single} and a {index} that does not name it, so it is unclear which weights count.</source>
        <translation>{folder} 中有 {single}，又有没有列出它的 {index}，不清楚以哪些权重为准。</translation>
    </message>
    <message>
        <source>Keep one of the two models in this folder.</source>
        <translation>请在此文件夹中只保留两个模型之一。</translation>
    </message>
    <message>
        <source>{folder} has its weights only as pickle files ({names}), which can run any program when they are opened.</source>
        <translation>{folder} 中只有 pickle 格式的权重（{names}），打开它们可能会运行任意程序。</translation>
    </message>
    <message>
        <source>The JSON schema can&apos;t be used: {why}.</source>
        <translation>无法使用这个 JSON Schema：{why}。</translation>
    </message>
    <message>
        <source>Simplify the schema, or use json_object and name the fields in the question.</source>
        <translation>请简化该 Schema，或使用 json_object 并在问题中写明字段。</translation>
    </message>
    <message>
        <source>The answer so far is not the beginning of the JSON that it must be.</source>
        <translation>已有的回答不是所要求 JSON 的开头。</translation>
    </message>
    <message>
        <source>{folder} has {names}, but no {index} that lists their tensors.</source>
        <translation>{folder} 中有 {names}，但没有列出其张量的 {index}。</translation>
    </message>
    <message>
        <source>The file ends early or is damaged: {percent}% of the picture is missing.</source>
        <translation>文件提前结束或已损坏:图片缺少 {percent}%。</translation>
    </message>
    <message>
        <source>The file ends early or is damaged: less than 1% is missing.</source>
        <translation>文件提前结束或已损坏:缺少不到 1%。</translation>
    </message>
    <message>
        <source>{file} is damaged or ends early: {percent}% of the picture is missing.</source>
        <translation>{file} 已损坏或提前结束:图片缺少 {percent}%。</translation>
    </message>
    <message>
        <source>{file} is a Git LFS pointer: the picture itself was not downloaded.</source>
        <translation>{file} 是 Git LFS 指针文件：图片本身尚未下载。</translation>
    </message>
    <message>
        <source>a QOI picture</source>
        <translation>QOI 图片</translation>
    </message>
    <message>
        <source>a DICOM picture</source>
        <translation>DICOM 图片</translation>
    </message>
    <message>
        <source>a DirectDraw texture</source>
        <translation>DirectDraw 纹理文件</translation>
    </message>
    <message>
        <source>Picture {number}: {why}</source>
        <translation>图片 {number}：{why}</translation>
    </message>
    <message>
        <source>The sheet of pictures</source>
        <translation>拼图</translation>
    </message>
    <message>
        <source>signed {bits}-bit samples whose black and white are unknown</source>
        <translation>黑白范围未知的 {bits} 位有符号样本</translation>
    </message>
    <message>
        <source>floating-point samples of {bits} bits whose black and white are unknown</source>
        <translation>黑白范围未知的 {bits} 位浮点样本</translation>
    </message>
    <message>
        <source>{bits} bits per sample in this form</source>
        <translation>这种形式的每样本 {bits} 位</translation>
    </message>
    <message>
        <source>The arguments can&apos;t be used: {why}.</source>
        <translation>无法使用这些参数：{why}。</translation>
    </message>
    <message>
        <source>The tool&apos;s input schema lists what it takes.</source>
        <translation>该工具的输入模式列出了它接受的参数。</translation>
    </message>
    <message>
        <source>Use a path that list_pictures returns.</source>
        <translation>请使用 list_pictures 返回的路径。</translation>
    </message>
    <message>
        <source>{file!r} is outside the folders that may be used: {folders}.</source>
        <translation>{file!r} 不在允许使用的文件夹内：{folders}。</translation>
    </message>
    <message>
        <source>The answer reached max_tokens before the JSON was complete.</source>
        <translation>回答在 JSON 完整之前已达到 max_tokens。</translation>
    </message>
    <message>
        <source>Use a larger max_tokens, or a schema with fewer or shorter values.</source>
        <translation>请使用更大的 max_tokens，或使用值更少或更短的模式。</translation>
    </message>
    <message>
        <source>The answer can&apos;t be read as JSON: {why}.</source>
        <translation>无法将回答读取为 JSON：{why}。</translation>
    </message>
    <message>
        <source>Use a schema with a maximum for each number and each length.</source>
        <translation>请使用为每个数字和每个长度都规定了最大值的模式。</translation>
    </message>
    <message>
        <source>The answer took too long and was stopped.</source>
        <translation>回答耗时过长，已停止。</translation>
    </message>
    <message>
        <source>it is read-only for this user</source>
        <translation>当前用户只能读取它</translation>
    </message>
    <message>
        <source>The cache folder {folder} can&apos;t be written: {why}.</source>
        <translation>无法写入缓存文件夹 {folder}：{why}。</translation>
    </message>
    <message>
        <source>Set the environment variable {variable} to a folder that can be written.</source>
        <translation>请将环境变量 {variable} 设为可写的文件夹。</translation>
    </message>
    <message>
        <source>There is no home folder for this user, so there is no place for files of this program.</source>
        <translation>当前用户没有主文件夹，因此本程序没有存放文件的位置。</translation>
    </message>
    <message>
        <source>{path} is not a folder</source>
        <translation>{path} 不是文件夹</translation>
    </message>
    <message>
        <source>This model&apos;s maximum context length is {context} tokens. {why}</source>
        <translation>模型的上下文最多 {context} 个 token。{why}</translation>
    </message>
    <message>
        <source>The body is compressed ({name}). Send it uncompressed.</source>
        <translation>请求正文经过压缩（{name}）。请发送未压缩的正文。</translation>
    </message>
    <message>
        <source>{count} requests are already in progress.</source>
        <translation>已有 {count} 个请求正在处理。</translation>
    </message>
    <message>
        <source>The pictures have {size} or more together, more than {most}.</source>
        <translation>这些图片合计至少 {size}，超过 {most}。</translation>
    </message>
    <message>
        <source>The request&apos;s header took more than {seconds:g} s.</source>
        <translation>请求头在 {seconds:g} 秒内没有到齐。</translation>
    </message>
    <message>
        <source>The request has both Content-Length and Transfer-Encoding. Send one of them.</source>
        <translation>请求同时带有 Content-Length 和 Transfer-Encoding。请只发送其中一个。</translation>
    </message>
    <message>
        <source>The JSON of the request has more than {most} values. Send fewer.</source>
        <translation>请求的 JSON 超过 {most} 个值。请减少数量。</translation>
    </message>
    <message>
        <source>The JSON of the request is nested too deeply: more than {most} levels.</source>
        <translation>请求的 JSON 嵌套过深：超过 {most} 层。</translation>
    </message>
    <message>
        <source>{param} must be a picture in base64, because this server opens neither web addresses nor files.</source>
        <translation>{param} 必须是 base64 编码的图片，因为此服务器既不打开网址也不打开文件。</translation>
    </message>
    <message>
        <source>a number of seconds or a duration such as &quot;5m&quot;</source>
        <translation>秒数，或如“5m”的时长</translation>
    </message>
    <message>
        <source>&quot;json&quot; or a JSON schema</source>
        <translation>&quot;json&quot; 或 JSON schema</translation>
    </message>
    <message>
        <source>this server has one model, and its models can&apos;t be changed over the API: start `cogvlm2-lite serve` with another folder</source>
        <translation>此服务器只有一个模型，不能通过 API 更改模型：请用另一个文件夹启动 `cogvlm2-lite serve`</translation>
    </message>
    <message>
        <source>This model does not support embeddings: it answers questions about pictures.</source>
        <translation>此模型不支持嵌入向量：它回答关于图片的问题。</translation>
    </message>
    <message>
        <source>Wait until it has ended, or choose another folder for the answers.</source>
        <translation>请等它结束，或为回答选择另一个文件夹。</translation>
    </message>
    <message>
        <source>Make it writable, or choose another folder for the answers.</source>
        <translation>请将其设为可写，或为回答选择另一个文件夹。</translation>
    </message>
    <message>
        <source>Install it: pip install &quot;cogvlm2-lite[{extra}]&quot;</source>
        <translation>请安装：pip install &quot;cogvlm2-lite[{extra}]&quot;</translation>
    </message>
    <message>
        <source>--port, --allow-origin and the API key are for --http.</source>
        <translation>--port、--allow-origin 和 API 密钥只用于 --http。</translation>
    </message>
    <message>
        <source>Use the same data and the same protocol for both.</source>
        <translation>请对两者使用相同的数据和相同的协议。</translation>
    </message>
    <message>
        <source>Use the same limit and the same seed for both.</source>
        <translation>请对两者使用相同的数量限制和相同的随机种子。</translation>
    </message>
    <message>
        <source>Free some space, or check that you may write there, and start again. The answers are kept.</source>
        <translation>请腾出一些空间，或检查您是否有写入权限，然后重新开始。已有的回答会保留。</translation>
    </message>
    <message>
        <source>{param} can&apos;t change the weights: they are used as they are in the folder.</source>
        <translation>{param} 不能改变权重：权重按文件夹中的形式使用。</translation>
    </message>
    <message>
        <source>{count} rows at once do not fit in memory. {why}</source>
        <translation>{count} 行同时计算时内存放不下。{why}</translation>
    </message>
    <message>
        <source>Pass fewer rows at a time, or load the model with a shorter context.</source>
        <translation>请一次传入较少的行，或用较短的上下文加载模型。</translation>
    </message>
    <message>
        <source>Choose page 1.</source>
        <translation>请选择第 1 页。</translation>
    </message>
    <message>
        <source>{file} has lines that {command} did not write.</source>
        <translation>{file} 中有并非由 {command} 写入的行。</translation>
    </message>
    <message>
        <source>Write it like 8GiB, for two GPUs like 8GiB,12GiB, or auto for what is free.</source>
        <translation>请写成 8GiB 的形式，两块 GPU 写成 8GiB,12GiB，或写 auto 使用空闲的显存。</translation>
    </message>
    <message>
        <source>Write it like 16GiB, or auto for what is free.</source>
        <translation>请写成 16GiB 的形式，或写 auto 使用空闲的内存。</translation>
    </message>
    <message>
        <source>The whole model needs {least} of RAM, where {usable}, and --offload is never.</source>
        <translation>整个模型需要 {least} 内存，{usable}，而 --offload 为 never。</translation>
    </message>
    <message>
        <source>{phase} needs at least {least} of RAM, where {usable}: {missing} more is needed.</source>
        <translation>{phase}至少需要 {least} 内存，{usable}：还差 {missing}。</translation>
    </message>
    <message>
        <source>This server has no {path}. OpenAI&apos;s API begins with /v1, and Ollama&apos;s with /api.</source>
        <translation>此服务器没有 {path}。OpenAI 的 API 以 /v1 开头，Ollama 的 API 以 /api 开头。</translation>
    </message>
    <message>
        <source>Choose an address of this computer with --host, such as 127.0.0.1.</source>
        <translation>请用 --host 指定这台电脑的一个地址，例如 127.0.0.1。</translation>
    </message>
    <message>
        <source>Choose a --port of 1024 or above: the system reserves those below.</source>
        <translation>请选择 1024 或更大的 --port：更小的端口由系统保留。</translation>
    </message>
    <message>
        <source>a list of strings, each a picture in base64</source>
        <translation>字符串列表，每个字符串是一张 base64 编码的图片</translation>
    </message>
    <message>
        <source>model {name!r} not found: the model of this server is {model!r}</source>
        <translation>找不到模型 {name!r}：此服务器的模型是 {model!r}</translation>
    </message>
    <message>
        <source>{param} is missing: it must be a JSON schema.</source>
        <translation>缺少 {param}：它必须是 JSON Schema。</translation>
    </message>
    <message>
        <source>The conversation has {count} pictures, and the model takes one: the answer is about the newest.</source>
        <translation>对话中有 {count} 张图片，而模型只接受一张：回答针对最新的一张。</translation>
    </message>
    <message>
        <source>The conversation has {count} pictures, and the model takes one: they are on one sheet, with the numbers 1 to {count}.</source>
        <translation>对话中有 {count} 张图片，而模型只接受一张：它们被拼在一张图上，编号为 1 到 {count}。</translation>
    </message>
    <message>
        <source>The conversation has {count} pictures, and the model takes one: the newest {most} are on one sheet, with the numbers 1 to {most}.</source>
        <translation>对话中有 {count} 张图片，而模型只接受一张：最新的 {most} 张被拼在一张图上，编号为 1 到 {most}。</translation>
    </message>
    <message>
        <source>{param} can&apos;t be combined with JSON: it would cut the answer off.</source>
        <translation>{param} 不能与 JSON 同时使用：它会截断回答。</translation>
    </message>
    <message>
        <source>{param} requires the call of a function, and {tools} does not have it.</source>
        <translation>{param} 要求调用一个函数，但 {tools} 中没有该函数。</translation>
    </message>
    <message>
        <source>a JSON schema</source>
        <translation>JSON Schema</translation>
    </message>
    <message>
        <source>The request has {value}, which is not a number in JSON.</source>
        <translation>请求中有 {value}，它不是 JSON 中的数字。</translation>
    </message>
    <message>
        <source>The number {value} in the request is too large.</source>
        <translation>请求中的数字 {value} 太大。</translation>
    </message>
    <message>
        <source>The body of the request is not UTF-8.</source>
        <translation>请求正文不是 UTF-8。</translation>
    </message>
    <message>
        <source>The body of the request is not JSON: see line {line}, column {column}.</source>
        <translation>请求正文不是 JSON：见第 {line} 行第 {column} 列。</translation>
    </message>
    <message>
        <source>{folder} can&apos;t be used: its setting {key} is {value}, which is not supported.</source>
        <translation>无法使用 {folder}：它的设置 {key} 是 {value}，本程序不支持。</translation>
    </message>
    <message>
        <source>Only plain LoRA adapters are.</source>
        <translation>只支持普通的 LoRA 适配器。</translation>
    </message>
    <message>
        <source>There is no adapter folder {folder}.</source>
        <translation>没有适配器文件夹 {folder}。</translation>
    </message>
    <message>
        <source>An adapter is a folder with {name}.</source>
        <translation>适配器是一个含有 {name} 的文件夹。</translation>
    </message>
    <message>
        <source>{folder} has no {name}.</source>
        <translation>{folder} 中没有 {name}。</translation>
    </message>
    <message>
        <source>Copy the adapter again.</source>
        <translation>请重新复制适配器。</translation>
    </message>
    <message>
        <source>{folder} was trained on another model of the same shape.</source>
        <translation>{folder} 是在另一个相同形状的模型上训练的。</translation>
    </message>
    <message>
        <source>Use the model it was made for, or --any-base to use it all the same.</source>
        <translation>请使用训练它时的模型，或用 --any-base 仍然使用它。</translation>
    </message>
    <message>
        <source>{folder} was made with init_lora_weights {value}, which also changes the base model.</source>
        <translation>{folder} 是用 init_lora_weights {value} 制作的，这也会改变基础模型。</translation>
    </message>
    <message>
        <source>Convert it to plain LoRA with peft: save_pretrained(..., path_initial_model_for_weight_conversion=...).</source>
        <translation>请用 peft 把它转换为普通的 LoRA：save_pretrained(..., path_initial_model_for_weight_conversion=...)。</translation>
    </message>
    <message>
        <source>{file}: {key} has a pattern that is not allowed.</source>
        <translation>{file}：{key} 含有不允许的模式。</translation>
    </message>
    <message>
        <source>Write the names of the modules in full.</source>
        <translation>请写出模块的完整名称。</translation>
    </message>
    <message>
        <source>The matrices of {file} have different ranks.</source>
        <translation>{file} 的矩阵的秩不同。</translation>
    </message>
    <message>
        <source>{file} has several adapters.</source>
        <translation>{file} 含有多个适配器。</translation>
    </message>
    <message>
        <source>{file} has no tensors.</source>
        <translation>{file} 中没有张量。</translation>
    </message>
    <message>
        <source>{folder}: {tensor} has the rank {rank}, but the settings say {stated}.</source>
        <translation>{folder}：{tensor} 的秩是 {rank}，但设置中写的是 {stated}。</translation>
    </message>
    <message>
        <source>The two files do not belong together. Copy the adapter again.</source>
        <translation>这两个文件不属于同一个适配器。请重新复制适配器。</translation>
    </message>
    <message>
        <source>{folder}: {tensor} has values that are not finite numbers.</source>
        <translation>{folder}：{tensor} 含有不是有限数的值。</translation>
    </message>
    <message>
        <source>Its training failed. Use an earlier state of it.</source>
        <translation>它的训练失败了。请使用较早的状态。</translation>
    </message>
    <message>
        <source>Update CogVLM2 Lite.</source>
        <translation>请更新 CogVLM2 Lite。</translation>
    </message>
    <message>
        <source>{file} is damaged.</source>
        <translation>{file} 已损坏。</translation>
    </message>
    <message>
        <source>{file}: {tensor} has the type {dtype}; adapters are float32, float16 or bfloat16.</source>
        <translation>{file}：{tensor} 的类型是 {dtype}；适配器应为 float32、float16 或 bfloat16。</translation>
    </message>
    <message>
        <source>The adapter {name} does not say for which model it was made.</source>
        <translation>适配器 {name} 没有说明它是为哪个模型制作的。</translation>
    </message>
    <message>
        <source>The adapter {name} changes nothing: it is zero.</source>
        <translation>适配器 {name} 不改变任何结果：它全为零。</translation>
    </message>
    <message>
        <source>{file} has more than 1 MiB, so it is no adapter&apos;s.</source>
        <translation>{file} 超过 1 MiB，因此不是适配器的文件。</translation>
    </message>
    <message>
        <source>{file}: {key} must be a positive number, not {value}.</source>
        <translation>{file}：{key} 必须是正数，而不是 {value}。</translation>
    </message>
    <message>
        <source>{file} has the tensor {tensor}, which is no part of an adapter of this model.</source>
        <translation>{file} 含有张量 {tensor}，它不属于此模型的适配器。</translation>
    </message>
    <message>
        <source>The adapter was made for another model, or trains more than linear layers.</source>
        <translation>这个适配器是为另一个模型制作的，或者训练了线性层以外的部分。</translation>
    </message>
    <message>
        <source>{file} has only one of the two matrices of {tensor}.</source>
        <translation>{file} 只含有 {tensor} 的两个矩阵之一。</translation>
    </message>
    <message>
        <source>{file}: the matrices of {tensor} have the shapes {down} and {up}; this model needs [rank, {columns}] and [{rows}, rank].</source>
        <translation>{file}：{tensor} 的矩阵形状是 {down} 和 {up}；此模型需要 [秩, {columns}] 和 [{rows}, 秩]。</translation>
    </message>
    <message>
        <source>The adapter was made for another model.</source>
        <translation>这个适配器是为另一个模型制作的。</translation>
    </message>
    <message>
        <source>{file} has no weight_map.</source>
        <translation>{file} 中没有 weight_map。</translation>
    </message>
    <message>
        <source>{file} is a link to a file outside of the folder.</source>
        <translation>{file} 是指向文件夹之外的链接。</translation>
    </message>
    <message>
        <source>Copy the file itself into the folder.</source>
        <translation>请把文件本身复制到该文件夹。</translation>
    </message>
    <message>
        <source>{file} has tensors that {index} does not list: {count} ({names}).</source>
        <translation>{file} 中有 {index} 没有列出的张量：{count} 个（{names}）。</translation>
    </message>
    <message>
        <source>The folder has tensors that this CogVLM2 model does not have: {count} ({names}).</source>
        <translation>文件夹中有这个 CogVLM2 模型没有的张量：{count} 个（{names}）。</translation>
    </message>
    <message>
        <source>The folder lacks tensors: {missing} of {count} ({names}).</source>
        <translation>文件夹缺少张量：{count} 个中的 {missing} 个（{names}）。</translation>
    </message>
    <message>
        <source>The folder has int8 tensors ({count}: {names}), but no {file}, which says how to read them.</source>
        <translation>文件夹中有 int8 张量（{count} 个：{names}），但没有说明如何读取它们的 {file}。</translation>
    </message>
    <message>
        <source>Copy {file} from where the weights came from.</source>
        <translation>请从权重的来源复制 {file}。</translation>
    </message>
    <message>
        <source>{tensor} must come with {expected}, but has {found}.</source>
        <translation>{tensor} 必须带有 {expected}，但带有的是 {found}。</translation>
    </message>
    <message>
        <source>{tensor} has {size} bytes of {dtype}; 4-bit codes of shape {shape} need {expected}.</source>
        <translation>{tensor} 有 {size} 字节的 {dtype}；形状为 {shape} 的 4 位编码需要 {expected} 字节。</translation>
    </message>
    <message>
        <source>{tensor} is stored as {dtype}; expected {names}.</source>
        <translation>{tensor} 存储为 {dtype}；应为 {names}。</translation>
    </message>
    <message>
        <source>{tensor} has the shape {shape}; config.json requires {expected}.</source>
        <translation>{tensor} 的形状是 {shape}；config.json 要求 {expected}。</translation>
    </message>
    <message>
        <source>quant_type must be {value}</source>
        <translation>quant_type 必须是 {value}</translation>
    </message>
    <message>
        <source>blocksize must be one of {names}</source>
        <translation>blocksize 必须是 {names} 之一</translation>
    </message>
    <message>
        <source>dtype must be float32, float16 or bfloat16</source>
        <translation>dtype 必须是 float32、float16 或 bfloat16</translation>
    </message>
    <message>
        <source>shape must be {shape}</source>
        <translation>shape 必须是 {shape}</translation>
    </message>
    <message>
        <source>nested_blocksize must be 256</source>
        <translation>nested_blocksize 必须是 256</translation>
    </message>
    <message>
        <source>nested_dtype must be float32</source>
        <translation>nested_dtype 必须是 float32</translation>
    </message>
    <message>
        <source>nested_offset must be a finite number</source>
        <translation>nested_offset 必须是有限的数</translation>
    </message>
    <message>
        <source>nested_offset and nested_absmax belong together</source>
        <translation>nested_offset 和 nested_absmax 必须同时存在</translation>
    </message>
    <message>
        <source>it has unknown keys</source>
        <translation>其中有未知的键</translation>
    </message>
    <message>
        <source>{tensor}.quant_state: {why}.</source>
        <translation>{tensor}.quant_state：{why}。</translation>
    </message>
    <message>
        <source>{file} is not an index: not a file, or more than 16 MiB.</source>
        <translation>{file} 不是索引：不是文件，或超过 16 MiB。</translation>
    </message>
    <message>
        <source>{file} names the file {name!r}; only plain .safetensors file names inside the folder are allowed.</source>
        <translation>{file} 中有文件名 {name!r}；只允许文件夹内普通的 .safetensors 文件名。</translation>
    </message>
    <message>
        <source>This index is damaged or was made to read other files. Don&apos;t use it.</source>
        <translation>这个索引已损坏，或是为读取其他文件而制作的。请不要使用。</translation>
    </message>
    <message>
        <source>{file} has tensors that are in {other} too: {count} ({names}).</source>
        <translation>{file} 中有 {other} 中也有的张量：{count} 个（{names}）。</translation>
    </message>
    <message>
        <source>{tensor}.quant_state is {size} bytes of {dtype}; expected U8 and at most {most}.</source>
        <translation>{tensor}.quant_state 是 {size} 字节的 {dtype}；应为 U8 且最多 {most} 字节。</translation>
    </message>
    <message>
        <source>{tensor} has two {role} tensors.</source>
        <translation>{tensor} 有两个 {role} 张量。</translation>
    </message>
    <message>
        <source>none</source>
        <translation>无</translation>
    </message>
    <message>
        <source>{where} is not a JSON object.</source>
        <translation>{where} 不是 JSON 对象。</translation>
    </message>
    <message>
        <source>The header of {file} claims to be {size} long; at most {most} is allowed.</source>
        <translation>{file} 声明文件头有 {size}；最多允许 {most}。</translation>
    </message>
    <message>
        <source>The file is damaged, or it is not a safetensors file.</source>
        <translation>文件已损坏，或不是 safetensors 文件。</translation>
    </message>
    <message>
        <source>The header of {file} claims to be {count} bytes long, but only {size} follow.</source>
        <translation>{file} 声明文件头有 {count} 字节，但后面只有 {size} 字节。</translation>
    </message>
    <message>
        <source>The {count} tensors of {file} end at byte {end}, but the file has {size} bytes.</source>
        <translation>{file} 中的 {count} 个张量止于第 {end} 字节，而文件有 {size} 字节。</translation>
    </message>
    <message>
        <source>{key} in {file} must map names to strings.</source>
        <translation>{file} 中的 {key} 必须是名称到字符串的映射。</translation>
    </message>
    <message>
        <source>{where} must have exactly dtype, shape and data_offsets.</source>
        <translation>{where} 必须恰好有 dtype、shape 和 data_offsets。</translation>
    </message>
    <message>
        <source>{where} has the unknown type {dtype!r}; the known ones are {names}.</source>
        <translation>{where} 的类型 {dtype!r} 未知；已知的有 {names}。</translation>
    </message>
    <message>
        <source>This is not a checkpoint that CogVLM2 Lite or transformers wrote.</source>
        <translation>这不是 CogVLM2 Lite 或 transformers 写成的模型文件。</translation>
    </message>
    <message>
        <source>{where} has the invalid shape {shape}.</source>
        <translation>{where} 的形状 {shape} 无效。</translation>
    </message>
    <message>
        <source>{where} has the invalid data_offsets {offsets}.</source>
        <translation>{where} 的 data_offsets {offsets} 无效。</translation>
    </message>
    <message>
        <source>{where} has {size} bytes, but {dtype} of shape {shape} needs {expected}.</source>
        <translation>{where} 有 {size} 字节，但形状为 {shape} 的 {dtype} 需要 {expected} 字节。</translation>
    </message>
    <message>
        <source>{file} does not exist.</source>
        <translation>{file} 不存在。</translation>
    </message>
    <message>
        <source>{where} is not valid UTF-8.</source>
        <translation>{where} 不是有效的 UTF-8。</translation>
    </message>
    <message>
        <source>{where} is nested too deeply.</source>
        <translation>{where} 的嵌套过深。</translation>
    </message>
    <message>
        <source>{where} is not valid JSON: {why}.</source>
        <translation>{where} 不是有效的 JSON：{why}。</translation>
    </message>
    <message>
        <source>{file} has a gap of {count} bytes before {tensor}.</source>
        <translation>{file} 在 {tensor} 之前有 {count} 字节的空隙。</translation>
    </message>
    <message>
        <source>{file} has an overlap of {count} bytes before {tensor}.</source>
        <translation>{file} 在 {tensor} 之前有 {count} 字节的重叠。</translation>
    </message>
    <message>
        <source>The {name} kernels don&apos;t work here: {why}.</source>
        <translation>{name} 计算核在这里无法工作：{why}。</translation>
    </message>
    <message>
        <source>Unknown kernel {name!r}.</source>
        <translation>未知计算核 {name!r}。</translation>
    </message>
    <message>
        <source>A weight is infinite or not a number, so this matrix can&apos;t be rounded to 4 bits.</source>
        <translation>有权重是无穷大或不是数，这个矩阵无法舍入为 4 位。</translation>
    </message>
    <message>
        <source>The checkpoint is damaged. Copy or download it again.</source>
        <translation>模型文件已损坏。请重新复制或下载。</translation>
    </message>
    <message>
        <source>{file} has format version {format!r}; this program knows version {known}.</source>
        <translation>{file} 的格式版本是 {format!r}；本程序支持版本 {known}。</translation>
    </message>
    <message>
        <source>Update CogVLM2 Lite, or run quantize again with this version.</source>
        <translation>请更新 CogVLM2 Lite，或用此版本重新运行 quantize。</translation>
    </message>
    <message>
        <source>{file} has more than 16 MiB, so it is not a manifest.</source>
        <translation>{file} 超过 16 MiB，不是清单文件。</translation>
    </message>
    <message>
        <source>{file} is not a manifest of version {known}: {why}.</source>
        <translation>{file} 不是版本 {known} 的清单文件：{why}。</translation>
    </message>
    <message>
        <source>The manifest is damaged. Copy it again, or run quantize again.</source>
        <translation>清单文件已损坏。请重新复制，或重新运行 quantize。</translation>
    </message>
    <message>
        <source>{file} was changed while the model was in use: it had {old} bytes, now {new}.</source>
        <translation>{file} 在模型使用期间被更改：原为 {old} 字节，现为 {new} 字节。</translation>
    </message>
    <message>
        <source>Wait until the file is complete, then start again.</source>
        <translation>请等文件完整后再重新开始。</translation>
    </message>
    <message>
        <source>{tensor}.quant_map has other values than {kind}.</source>
        <translation>{tensor}.quant_map 的值与 {kind} 不同。</translation>
    </message>
    <message>
        <source>This folder was written by another program.</source>
        <translation>这个文件夹由其他程序写成。</translation>
    </message>
    <message>
        <source>The engine can&apos;t answer now.</source>
        <translation>引擎现在无法回答。</translation>
    </message>
    <message>
        <source>The engine is not started.</source>
        <translation>引擎没有启动。</translation>
    </message>
    <message>
        <source>The engine is loading the model.</source>
        <translation>引擎正在加载模型。</translation>
    </message>
    <message>
        <source>The engine has no model loaded.</source>
        <translation>引擎没有加载模型。</translation>
    </message>
    <message>
        <source>The engine has stopped.</source>
        <translation>引擎已停止。</translation>
    </message>
    <message>
        <source>Wait until it is ready.</source>
        <translation>请等它就绪。</translation>
    </message>
    <message>
        <source>The engine stopped responding (no message for {seconds} s) and was ended.</source>
        <translation>引擎停止响应（{seconds} 秒没有消息），已被结束。</translation>
    </message>
    <message>
        <source>The engine stopped responding (one step took more than {seconds} s) and was ended.</source>
        <translation>引擎停止响应（一个步骤用时超过 {seconds} 秒），已被结束。</translation>
    </message>
    <message>
        <source>The engine is already started.</source>
        <translation>引擎已经启动。</translation>
    </message>
    <message>
        <source>The engine has an internal error; the log of the program has the details.</source>
        <translation>引擎出现内部错误；详情见程序日志。</translation>
    </message>
    <message>
        <source>The picture has {count} bytes, which are not {width} by {height} pixels.</source>
        <translation>图片有 {count} 个字节，与 {width} × {height} 像素不符。</translation>
    </message>
    <message>
        <source>There is not enough memory to continue.</source>
        <translation>内存不足，无法继续。</translation>
    </message>
    <message>
        <source>No model is loaded.</source>
        <translation>没有加载模型。</translation>
    </message>
    <message>
        <source>Load one first.</source>
        <translation>请先加载一个模型。</translation>
    </message>
    <message>
        <source>A message between this program and the engine&apos;s process can&apos;t be read: {why}.</source>
        <translation>无法读取本程序与引擎进程之间的消息：{why}。</translation>
    </message>
    <message>
        <source>Start the program again; both must be of the same version.</source>
        <translation>请重新启动程序；两者的版本必须相同。</translation>
    </message>
    <message>
        <source>A message of the engine&apos;s process was cut off.</source>
        <translation>引擎进程的一条消息不完整。</translation>
    </message>
    <message>
        <source>it has {size}</source>
        <translation>其大小为 {size}</translation>
    </message>
    <message>
        <source>A budget of {value} is {most}, but plain NF4 takes {size} ({bits:.3f} bits per weight).</source>
        <translation>预算 {value} 为 {most}，而普通 NF4 需要 {size}（每个权重 {bits:.3f} 位）。</translation>
    </message>
    <message>
        <source>Invalid budget: {value!r}.</source>
        <translation>预算无效：{value!r}。</translation>
    </message>
    <message>
        <source>Write it like +5%, 4.6bits or 12.0GiB.</source>
        <translation>请写成 +5%、4.6bits 或 12.0GiB 的形式。</translation>
    </message>
    <message>
        <source>Too few samples to calibrate with: {count}.</source>
        <translation>用于校准的样本过少：{count} 个。</translation>
    </message>
    <message>
        <source>Use at least {least}; 64 is a good number. Or use --calibrate built-in.</source>
        <translation>请至少使用 {least} 个；64 个较好。也可以使用 --calibrate built-in。</translation>
    </message>
    <message>
        <source>no sample reached it</source>
        <translation>没有样本用到它</translation>
    </message>
    <message>
        <source>Calibration needs {size} of scratch space in {folder}, which has {free} free.</source>
        <translation>校准需要在 {folder} 中使用 {size} 临时空间，那里有 {free} 可用。</translation>
    </message>
    <message>
        <source>Free some space, use fewer samples (--samples), or use another disk.</source>
        <translation>请腾出空间、减少样本（--samples）或使用其他磁盘。</translation>
    </message>
    <message>
        <source>{folder} was started with {old}, but now it is {new}.</source>
        <translation>{folder} 开始时用的是 {old}，现在是 {new}。</translation>
    </message>
    <message>
        <source>Use the same samples and options as before, or add --restart.</source>
        <translation>请使用与之前相同的样本和选项，或加上 --restart。</translation>
    </message>
    <message>
        <source>round to nearest is better on the held-out samples</source>
        <translation>在留出的样本上，就近舍入更好</translation>
    </message>
    <message>
        <source>Measuring {count} variants needs {size} of scratch space in {folder}, which has {free} free.</source>
        <translation>测量 {count} 种变体需要在 {folder} 中使用 {size} 临时空间，那里有 {free} 可用。</translation>
    </message>
    <message>
        <source>Finished work is kept in DST.partial: run the same command again to continue.</source>
        <translation>已完成的部分保存在目标旁的 .partial 文件夹中：再次开始即可继续。</translation>
    </message>
    <message>
        <source>--{name} needs calibration, because without it nothing is measured.</source>
        <translation>--{name} 需要校准，因为不校准就不会测量任何内容。</translation>
    </message>
    <message>
        <source>Add --calibrate built-in or --calibrate with your own samples. --keep chooses by hand.</source>
        <translation>请加上 --calibrate built-in，或用自己的样本加上 --calibrate。--keep 可手动选择。</translation>
    </message>
    <message>
        <source>Use the same options as before to continue it, or add --restart to delete it and start over.</source>
        <translation>请用与之前相同的选项继续，或加上 --restart 删除后重新开始。</translation>
    </message>
    <message>
        <source>Move it away, or choose another destination.</source>
        <translation>请把它移走，或选择其他目标。</translation>
    </message>
    <message>
        <source>with {old}, but this is {new}</source>
        <translation>原为 {old}，现为 {new}</translation>
    </message>
    <message>
        <source>from another source ({name} {old}, now {new})</source>
        <translation>来源不同（{name} 原为 {old}，现为 {new}）</translation>
    </message>
    <message>
        <source>with {name} {old}, but now it is {new}</source>
        <translation>{name} 原为 {old}，现为 {new}</translation>
    </message>
    <message>
        <source>Another run is writing {folder} now ({file} is locked: {why}).</source>
        <translation>另一次转换正在写入 {folder}（{file} 被锁定：{why}）。</translation>
    </message>
    <message>
        <source>--{name} must be {least} or more, not {value}.</source>
        <translation>--{name} 必须是 {least} 或更大，而不是 {value}。</translation>
    </message>
    <message>
        <source>--count must be 1 or more, not {value}.</source>
        <translation>--count 必须是 1 或更大，而不是 {value}。</translation>
    </message>
    <message>
        <source>Training</source>
        <translation>训练</translation>
    </message>
    <message>
        <source>Close other programs, allow more memory, or use a smaller --max-tokens or --rank.</source>
        <translation>请关闭其他程序、允许使用更多内存，或使用更小的 --max-tokens 或 --rank。</translation>
    </message>
    <message>
        <source>{gpu} does not respond: {why}</source>
        <translation>{gpu} 没有响应：{why}</translation>
    </message>
    <message>
        <source>An adapter can&apos;t be added to a loaded model: it counts in the memory plan.</source>
        <translation>不能向已加载的模型添加适配器：它要计入内存规划。</translation>
    </message>
    <message>
        <source>Load it with the model: from_pretrained(FOLDER, adapter=&quot;ADAPTER&quot;).</source>
        <translation>请在加载模型时一并加载：from_pretrained(FOLDER, adapter=&quot;ADAPTER&quot;)。</translation>
    </message>
    <message>
        <source>The model can&apos;t be trained through transformers: it has no modules.</source>
        <translation>不能通过 transformers 训练此模型：它没有模块。</translation>
    </message>
    <message>
        <source>Train an adapter with `cogvlm2-lite finetune`.</source>
        <translation>请用 `cogvlm2-lite finetune` 训练适配器。</translation>
    </message>
    <message>
        <source>Pictures can&apos;t be assigned to texts (pictures: {count}, texts: {texts}).</source>
        <translation>无法把图片分配给文本（图片：{count}，文本：{texts}）。</translation>
    </message>
    <message>
        <source>The draft text {file} is not a text file in UTF-8.</source>
        <translation>草稿文本 {file} 不是 UTF-8 编码的文本文件。</translation>
    </message>
    <message>
        <source>The draft text {file} can&apos;t be read: {why}.</source>
        <translation>无法读取草稿文本 {file}：{why}。</translation>
    </message>
    <message>
        <source>Check the name of the file.</source>
        <translation>请检查文件名。</translation>
    </message>
    <message>
        <source>The draft text {file} has more than {most}.</source>
        <translation>草稿文本 {file} 超过 {most}。</translation>
    </message>
    <message>
        <source>Use only the text of this picture.</source>
        <translation>请只使用这张图片的文本。</translation>
    </message>
    <message>
        <source>It is a PDF file. Extract its text first, for example with pdftotext.</source>
        <translation>这是一个 PDF 文件。请先提取其中的文本，例如使用 pdftotext。</translation>
    </message>
    <message>
        <source>It is a picture ({kind}). Use the text that an OCR program wrote.</source>
        <translation>这是一张图片（{kind}）。请使用 OCR 程序写出的文本。</translation>
    </message>
    <message>
        <source>Save it as plain text in UTF-8.</source>
        <translation>请将其另存为 UTF-8 编码的纯文本。</translation>
    </message>
    <message>
        <source>Training needs at least {least} of RAM for the trained numbers and one conversation, where {size} can be used.</source>
        <translation>训练至少需要 {least} 内存来存放训练的数值和一段对话，而可用的只有 {size}。</translation>
    </message>
    <message>
        <source>Close other programs, or use a smaller --rank or --max-tokens.</source>
        <translation>请关闭其他程序，或使用更小的 --rank 或 --max-tokens。</translation>
    </message>
    <message>
        <source>Save it again with the encoding UTF-8.</source>
        <translation>请用 UTF-8 编码重新保存。</translation>
    </message>
    <message>
        <source>{file} is an archive.</source>
        <translation>{file} 是压缩包。</translation>
    </message>
    <message>
        <source>Unpack it and use the folder.</source>
        <translation>请将其解压，然后使用解压后的文件夹。</translation>
    </message>
    <message>
        <source>{file} is not data of a known form.</source>
        <translation>{file} 不是已知格式的数据。</translation>
    </message>
    <message>
        <source>{folder} has several files of data: {files}.</source>
        <translation>{folder} 中有多个数据文件：{files}。</translation>
    </message>
    <message>
        <source>Use one of the files instead of the folder.</source>
        <translation>请指定其中一个文件，而不是文件夹。</translation>
    </message>
    <message>
        <source>{file} has two columns {name}.</source>
        <translation>{file} 有两个名为 {name} 的列。</translation>
    </message>
    <message>
        <source>{file} is not valid JSON: line {line}, column {column}: {why}.</source>
        <translation>{file} 不是有效的 JSON：第 {line} 行第 {column} 列：{why}。</translation>
    </message>
    <message>
        <source>Correct it. A common reason is a comma after the last entry.</source>
        <translation>请改正。常见原因是最后一项后面多了逗号。</translation>
    </message>
    <message>
        <source>A quote inside of a quoted cell must be doubled.</source>
        <translation>带引号的单元格内部的引号必须写两次。</translation>
    </message>
    <message>
        <source>{param} must be at most {most}, the context of the model, not {value}.</source>
        <translation>{param} 最多为 {most}（模型的上下文长度），不能为 {value}。</translation>
    </message>
    <message>
        <source>The numbers in names such as {names} are ignored: each row counts once.</source>
        <translation>{names} 等名称中的数字会被忽略：每一行只计一次。</translation>
    </message>
    <message>
        <source>Unknown model. The models of this server are {names}.</source>
        <translation>未知的模型。此服务器的模型是 {names}。</translation>
    </message>
    <message>
        <source>Unknown model. The model of this server is {names}.</source>
        <translation>未知的模型。此服务器的模型是 {names}。</translation>
    </message>
    <message>
        <source>a list that contains only {name}</source>
        <translation>只包含 {name} 的列表</translation>
    </message>
    <message>
        <source>can&apos;t be used: the model has no tools</source>
        <translation>无法使用：模型没有工具</translation>
    </message>
    <message>
        <source>must be false: this server stores no answers</source>
        <translation>必须是 false：此服务器不保存回答</translation>
    </message>
    <message>
        <source>can&apos;t be used: this server stores no answers, so send the whole conversation as input</source>
        <translation>无法使用：此服务器不保存回答，请把整个对话作为 input 发送</translation>
    </message>
    <message>
        <source>{param} must begin with data:image/...;base64, because this server opens neither web addresses nor files.</source>
        <translation>{param} 必须以 data:image/...;base64, 开头，因为此服务器既不打开网址也不打开文件。</translation>
    </message>
    <message>
        <source>An adapter of a server can&apos;t be called {name!r}: that is the model&apos;s own tag in Ollama&apos;s API.</source>
        <translation>服务器的适配器不能叫 {name!r}：在 Ollama 的 API 中，这是模型自身的标签。</translation>
    </message>
    <message>
        <source>Choose another name, as in --adapter mine=FOLDER</source>
        <translation>请换一个名称，例如 --adapter mine=文件夹</translation>
    </message>
    <message>
        <source>{param} must be {expected}, not {value}.</source>
        <translation>{param} 必须是 {expected}，而不是 {value}。</translation>
    </message>
    <message>
        <source>model {name!r} not found: the models of this server are {model}</source>
        <translation>找不到模型 {name!r}：此服务器的模型是 {model}</translation>
    </message>
    <message>
        <source>a text, tokens, or a list of up to {most} of them</source>
        <translation>一段文本、若干token，或最多 {most} 个这样的提示组成的列表</translation>
    </message>
    <message>
        <source>adapter_model.bin is in pickle format, which can run programs, and is not opened. If you trust it, convert it in its folder: python -c &quot;import torch, safetensors.torch as s; s.save_file(torch.load(&apos;adapter_model.bin&apos;, weights_only=True), &apos;adapter_model.safetensors&apos;)&quot;</source>
        <translation>adapter_model.bin 是 pickle 格式，可能会运行程序，因此不会打开。如果你信任它，请在它所在的文件夹中转换：python -c &quot;import torch, safetensors.torch as s; s.save_file(torch.load(&apos;adapter_model.bin&apos;, weights_only=True), &apos;adapter_model.safetensors&apos;)&quot;</translation>
    </message>
    <message>
        <source>This is the folder of a model. An adapter is a folder of its own.</source>
        <translation>这是模型的文件夹。适配器是单独的一个文件夹。</translation>
    </message>
    <message>
        <source>Did you mean {folder}?</source>
        <translation>是不是想用 {folder}？</translation>
    </message>
    <message>
        <source>The tensors of the adapter {name} were changed after it was trained.</source>
        <translation>适配器 {name} 的张量在训练之后被修改过。</translation>
    </message>
    <message>
        <source>The adapter {name} was trained on the {theirs} weights of this model, and has learnt their rounding errors. These are its {ours} weights. On the demo model, 98.7 % of an adapter&apos;s new answers were right with the NF4 weights that it was trained on, and 94.7 % with the 16-bit ones.</source>
        <translation>适配器 {name} 是在此模型的 {theirs} 权重上训练的，也学到了它们的舍入误差；现在用的是 {ours} 权重。在演示模型上，适配器的新回答在训练所用的 NF4 权重上有 98.7 % 正确，在 16 位权重上有 94.7 % 正确。</translation>
    </message>
    <message>
        <source>The adapter {name} was trained with another tokenizer.json. If its tokens are other ones, the answers are wrong.</source>
        <translation>适配器 {name} 训练时用的是另一个 tokenizer.json。如果其中的 token 不同，回答会是错的。</translation>
    </message>
    <message>
        <source>{file} changes {tensor}. Adapters of the output matrix and of the embedding are not supported.</source>
        <translation>{file} 修改了 {tensor}。不支持修改输出矩阵和嵌入的适配器。</translation>
    </message>
    <message>
        <source>Train an adapter of the linear layers of the blocks.</source>
        <translation>请只对各层中的线性层训练适配器。</translation>
    </message>
    <message>
        <source>{file} has lora_{side} of {tensor} twice.</source>
        <translation>{file} 中 {tensor} 的 lora_{side} 出现了两次。</translation>
    </message>
    <message>
        <source>They are empty: DeepSpeed with ZeRO 3 writes such files unless stage3_gather_16bit_weights_on_model_save is on. Save the adapter again.</source>
        <translation>它们是空的：DeepSpeed 的 ZeRO 3 会写出这样的文件，除非打开 stage3_gather_16bit_weights_on_model_save。请重新保存适配器。</translation>
    </message>
    <message>
        <source>other {kind}</source>
        <translation>另一份 {kind}</translation>
    </message>
    <message>
        <source>There is no adapter {name!r}.</source>
        <translation>没有名为 {name!r} 的适配器。</translation>
    </message>
    <message>
        <source>Load one with --adapter FOLDER.</source>
        <translation>请用 --adapter 文件夹 加载一个。</translation>
    </message>
    <message>
        <source>An adapter can&apos;t be called {name!r}: that is the model without an adapter.</source>
        <translation>适配器不能叫 {name!r}：这个名称表示不带适配器的模型。</translation>
    </message>
    <message>
        <source>Choose another name, as in --adapter mine={text}</source>
        <translation>请换一个名称，例如 --adapter mine={text}</translation>
    </message>
    <message>
        <source>{name!r} can&apos;t be the name of an adapter.</source>
        <translation>{name!r} 不能用作适配器的名称。</translation>
    </message>
    <message>
        <source>Choose a short name without a slash, as in --adapter mine=FOLDER</source>
        <translation>请使用不含斜杠的短名称，例如 --adapter mine=文件夹</translation>
    </message>
    <message>
        <source>The weight of an adapter must be between {least} and {most}, not {value}.</source>
        <translation>适配器的权重必须在 {least} 到 {most} 之间，不能是 {value}。</translation>
    </message>
    <message>
        <source>1 is the adapter as it was trained; 0.5 halves its effect.</source>
        <translation>1 表示适配器训练时的效果；0.5 使其效果减半。</translation>
    </message>
    <message>
        <source>Two adapters are called {name!r}.</source>
        <translation>有两个适配器都叫 {name!r}。</translation>
    </message>
    <message>
        <source>Name them: --adapter one=FOLDER --adapter two=FOLDER. Adapters to which you give the same name are added up.</source>
        <translation>请为它们命名：--adapter one=文件夹 --adapter two=文件夹。您给予相同名称的适配器会相加。</translation>
    </message>
    <message>
        <source>The adapters {name} can&apos;t be added up: some act on all tokens, and some only behind the picture.</source>
        <translation>适配器 {name} 不能相加：有的作用于所有词元，有的只作用于图片之后的词元。</translation>
    </message>
    <message>
        <source>Use one of them at a time.</source>
        <translation>请每次只使用其中一个。</translation>
    </message>
    <message>
        <source>{folder} has files that can&apos;t be used: {count} of {total}. {problems}</source>
        <translation>{folder} 中有无法使用的文件：{total} 个中的 {count} 个。{problems}</translation>
    </message>
    <message>
        <source>{index} lists tensors in {file} ({names}), but {tensor} is in {other}.</source>
        <translation>{index} 说 {file} 中有张量（{names}），但 {tensor} 在 {other} 中。</translation>
    </message>
    <message>
        <source>{index} lists tensors in {file} ({names}), but no file has {tensor}.</source>
        <translation>{index} 说 {file} 中有张量（{names}），但没有文件包含 {tensor}。</translation>
    </message>
    <message>
        <source>{file} is incomplete: it has {size} of the {expected} bytes that its header lists ({missing} are missing).</source>
        <translation>{file} 不完整：文件头列出 {expected} 字节，实际只有 {size} 字节（缺少 {missing}）。</translation>
    </message>
    <message>
        <source>Its download or copy ended early. Continue it, or download the file again.</source>
        <translation>下载或复制提前结束。请继续下载，或重新下载该文件。</translation>
    </message>
    <message>
        <source>Unknown level of instructions {name!r} in {variable}.</source>
        <translation>{variable} 中的指令级别 {name!r} 未知。</translation>
    </message>
    <message>
        <source>The download of the file was not complete, or the disk lost a part. Download or copy it again.</source>
        <translation>文件没有下载完整，或者磁盘丢失了一部分。请重新下载或复制。</translation>
    </message>
    <message>
        <source>{size} of zeros follow its byte {place}</source>
        <translation>从第 {place} 字节起有 {size} 的零</translation>
    </message>
    <message>
        <source>{tensor} in {file} was not downloaded completely: {problem}.</source>
        <translation>{file} 中的 {tensor} 没有下载完整：{problem}。</translation>
    </message>
    <message>
        <source>it contains only zeros</source>
        <translation>其中只有零</translation>
    </message>
    <message>
        <source>Answers may be wrong.</source>
        <translation>回答可能不正确。</translation>
    </message>
    <message>
        <source>Use a larger budget, or let it choose lm_head, too (--lm-head budget).</source>
        <translation>请使用更大的预算，或者让预算也决定 lm_head 的存储方式（--lm-head budget）。</translation>
    </message>
    <message>
        <source>Rounded to nearest: with --adapter there is no calibration.</source>
        <translation>按就近取整：使用 --adapter 时不做校准。</translation>
    </message>
    <message>
        <source>--calibrate and --adapter can&apos;t be used together: the calibration would see the weights without the adapter.</source>
        <translation>--calibrate 和 --adapter 不能同时使用：校准看到的会是不含适配器的权重。</translation>
    </message>
    <message>
        <source>Use merge to write a 16-bit folder, and quantize that one with --calibrate.</source>
        <translation>请先用 merge 写出 16 位文件夹，再用 --calibrate 量化该文件夹。</translation>
    </message>
    <message>
        <source>Calibrating takes about {time}, and up to {size} of disk space until it is finished. You can stop it; the same command resumes it.</source>
        <translation>校准大约需要 {time}，完成之前最多占用 {size} 磁盘空间。可以随时停止；同一命令会继续。</translation>
    </message>
    <message>
        <source>{folder} exists, but was not made by an earlier quantize or merge ({file} is in it).</source>
        <translation>{folder} 已存在，但不是先前的 quantize 或 merge 创建的（其中有 {file}）。</translation>
    </message>
    <message>
        <source>Wait until it has ended, or choose another destination.</source>
        <translation>请等它结束，或选择其他目标。</translation>
    </message>
    <message>
        <source>The adapter {name} (rank {ranks}) is added to {count} matrices.</source>
        <translation>适配器 {name}（秩 {ranks}）将加到 {count} 个矩阵上。</translation>
    </message>
    <message>
        <source>The adapter acted only behind the picture. Merged, it acts on all tokens: its held-out loss was {behind} behind the picture, and {everywhere} on all tokens.</source>
        <translation>适配器此前只作用于图片之后。合并后它作用于所有 token：它在留出数据上的损失，只作用于图片之后时为 {behind}，作用于所有 token 时为 {everywhere}。</translation>
    </message>
    <message>
        <source>The adapter acted only behind the picture. Merged, it acts on all tokens, so some answers may differ from those with --adapter.</source>
        <translation>该适配器原本只作用于图片之后的内容。合并后它作用于所有词元，因此有些回答可能与使用 --adapter 时不同。</translation>
    </message>
    <message>
        <source>Afterwards, {count} answers of {data} are compared on the CPU with those of MODEL and the adapter; --check none skips this.</source>
        <translation>完成后，会在 CPU 上用 {data} 中的 {count} 个回答与 MODEL 加适配器的结果比较；--check none 可跳过。</translation>
    </message>
    <message>
        <source>{model} was not made from {original}.</source>
        <translation>{model} 不是由 {original} 制作的。</translation>
    </message>
    <message>
        <source>Give --original the 16-bit folder from which MODEL was quantized.</source>
        <translation>请在 --original 中给出量化 MODEL 时所用的 16 位文件夹。</translation>
    </message>
    <message>
        <source>--original needs rows on which the two models are compared.</source>
        <translation>--original 需要用来比较两个模型的数据行。</translation>
    </message>
    <message>
        <source>Add --check with rows that were held out, or --check built-in.</source>
        <translation>请用 --check 给出留出的数据行，或使用 --check built-in。</translation>
    </message>
    <message>
        <source>{folder} already exists and was made {difference}.</source>
        <translation>{folder} 已存在，设置不同：{difference}。</translation>
    </message>
    <message>
        <source>{folder} already exists and is not empty.</source>
        <translation>{folder} 已存在且不为空。</translation>
    </message>
    <message>
        <source>Choose a folder that does not exist yet, or delete or rename this one.</source>
        <translation>请选择一个尚不存在的文件夹，或者删除或重命名现有的文件夹。</translation>
    </message>
    <message>
        <source>The disk of {folder} allows no file of {size}: on FAT32, files end at 4 GiB.</source>
        <translation>{folder} 所在的磁盘不允许 {size} 的文件：FAT32 上的文件最大为 4 GiB。</translation>
    </message>
    <message>
        <source>Run the same command again with --shard-size {smaller}: a calibration so far is kept, and the weight files are written anew. Or choose a destination on another disk.</source>
        <translation>请加上 --shard-size {smaller} 重新运行同一命令：已完成的校准会保留，权重文件会重新写入。也可以选择其他磁盘上的目标文件夹。</translation>
    </message>
    <message>
        <source>Free that much, or choose a destination on another disk. Nothing was written.</source>
        <translation>请腾出这么多空间，或选择其他磁盘上的目标。尚未写入任何内容。</translation>
    </message>
    <message>
        <source>{folder} has no manifest any more.</source>
        <translation>{folder} 中的清单文件已不存在。</translation>
    </message>
    <message>
        <source>Another program changed the folder. Run the command again.</source>
        <translation>另一个程序更改了该文件夹。请再次运行该命令。</translation>
    </message>
    <message>
        <source>The budget leaves {size} ({share}) more. After calibration it is spent on the matrices that need it most, as int8 or 16 bits. Plain transformers can&apos;t load int8 matrices.</source>
        <translation>预算还剩 {size}（{share}）。校准之后，它会以 int8 或 16 位用在最需要的矩阵上。普通 transformers 无法加载 int8 矩阵。</translation>
    </message>
    <message>
        <source>The budget leaves {size} ({share}) more. After calibration it is spent on the matrices that need it most, in 16 bits: for a GPU, int8 is slower than both.</source>
        <translation>预算还剩余 {size}（{share}）。校准之后会用于最需要的矩阵，以 16 位存储：在 GPU 上，int8 比 4 位和 16 位都慢。</translation>
    </message>
    <message>
        <source>The source has no tokenizer.json, so the result will have none; questions need one.</source>
        <translation>来源中没有 tokenizer.json，结果中也不会有；提问需要它。</translation>
    </message>
    <message>
        <source>int8 is CogVLM2 Lite&apos;s own storage kind: plain transformers can&apos;t load this folder.</source>
        <translation>int8 是 CogVLM2 Lite 自己的存储方式：普通 transformers 无法加载此文件夹。</translation>
    </message>
    <message>
        <source>The memory of {device} is not enough for the calibration: {why}.</source>
        <translation>{device} 的内存不足以进行校准：{why}。</translation>
    </message>
    <message>
        <source>Finished blocks are kept. Close other programs that use this memory and run the same command again: it continues where it stopped. Or add --device cpu --restart.</source>
        <translation>已完成的层会保留。请关闭占用此内存的其他程序，再次运行同一命令：它会从中断处继续。或者加上 --device cpu --restart。</translation>
    </message>
    <message>
        <source>Check its permissions and the disk, or choose another destination. Finished work is kept.</source>
        <translation>请检查其权限和磁盘，或选择其他目标。已完成的部分会保留。</translation>
    </message>
    <message>
        <source>The disk of {folder} is full ({free} free).</source>
        <translation>{folder} 所在的磁盘已满（可用 {free}）。</translation>
    </message>
    <message>
        <source>Free some space and run the same command again: it continues where it stopped.</source>
        <translation>请腾出空间后再次开始：会从停下的地方继续。</translation>
    </message>
    <message>
        <source>Use a part ({names}) or a tensor name with * in it.</source>
        <translation>请使用某个部分（{names}），或带有 * 的张量名。</translation>
    </message>
    <message>
        <source>--keep {pattern}={kind} matches none of the {count} linear matrices.</source>
        <translation>--keep {pattern}={kind} 与 {count} 个线性矩阵都不匹配。</translation>
    </message>
    <message>
        <source>--keep {pattern}={kind} matches none of the {count} matrices of the adapter.</source>
        <translation>--keep {pattern}={kind} 与适配器的 {count} 个矩阵都不匹配。</translation>
    </message>
    <message>
        <source>--keep needs a 4-bit result; this one has 16 bits.</source>
        <translation>--keep 只适用于 4 位的结果；这次的结果是 16 位。</translation>
    </message>
    <message>
        <source>Leave --keep out.</source>
        <translation>请去掉 --keep。</translation>
    </message>
    <message>
        <source>FP4 can be read, not written</source>
        <translation>FP4 只能读取，不能写入</translation>
    </message>
    <message>
        <source>its {count} columns are not a multiple of {size}</source>
        <translation>其 {count} 列不是 {size} 的整数倍</translation>
    </message>
    <message>
        <source>{tensor} would have {value} at row {row}, column {column} with the adapter in it.</source>
        <translation>加上适配器后，{tensor} 的第 {row} 行第 {column} 列会是 {value}。</translation>
    </message>
    <message>
        <source>{tensor} has {value} at row {row}, column {column}, so it can&apos;t be rounded.</source>
        <translation>{tensor} 的第 {row} 行第 {column} 列为 {value}，无法舍入。</translation>
    </message>
    <message>
        <source>The adapter&apos;s values are too large, or {file} is damaged: copy or download it again.</source>
        <translation>适配器的数值过大，或者 {file} 已损坏：请重新复制或下载它。</translation>
    </message>
    <message>
        <source>Choose a new folder for the result; the source is only read.</source>
        <translation>请为结果选择一个新文件夹；来源只会被读取。</translation>
    </message>
    <message>
        <source>{folder} is inside the source {source}.</source>
        <translation>{folder} 位于来源 {source} 之内。</translation>
    </message>
    <message>
        <source>Choose a folder outside of it; the source is only read.</source>
        <translation>请选择来源之外的文件夹；来源只会被读取。</translation>
    </message>
    <message>
        <source>{file} ends in the middle of {tensor}: it needs {missing} more bytes.</source>
        <translation>{file} 在 {tensor} 中间结束：还需要 {missing} 字节。</translation>
    </message>
    <message>
        <source>The disk or the network may be failing. Finished work is kept: put a good copy of the file in its place and run the same command again.</source>
        <translation>磁盘或网络可能出了故障。已完成的部分会保留：请换上完好的文件后再次开始。</translation>
    </message>
    <message>
        <source>according to its config.json</source>
        <translation>根据其 config.json</translation>
    </message>
    <message>
        <source>has {size} bytes instead of {expected}</source>
        <translation>有 {size} 字节，而应为 {expected} 字节</translation>
    </message>
    <message>
        <source>Use the folder that quantize wrote.</source>
        <translation>请指定由 quantize 写出的文件夹。</translation>
    </message>
    <message>
        <source>its tensors are not those that the manifest lists</source>
        <translation>其张量与清单列出的不同</translation>
    </message>
    <message>
        <source>its header was changed, so its tensors can&apos;t be found</source>
        <translation>其文件头被更改，无法找到张量</translation>
    </message>
    <message>
        <source>can&apos;t be read: {why}</source>
        <translation>无法读取：{why}</translation>
    </message>
    <message>
        <source>was changed: its sha256 is different</source>
        <translation>已被更改：sha256 不同</translation>
    </message>
    <message>
        <source>sha256 differs in {names}</source>
        <translation>{names} 的 sha256 不同</translation>
    </message>
    <message>
        <source>The part of this question is outside of the picture: the picture was replaced.</source>
        <translation>这个问题所指的部分在图片之外：图片已被替换。</translation>
    </message>
    <message>
        <source>Choose a part of the new picture.</source>
        <translation>请在新图片上选择一个部分。</translation>
    </message>
    <message>
        <source>The picture was removed before it was read.</source>
        <translation>图片在读取之前已被移除。</translation>
    </message>
    <message>
        <source>The picture took too long to read.</source>
        <translation>读取图片用时过长。</translation>
    </message>
    <message>
        <source>{size} must still be written to {folder}, where {reserve} must stay free. It has {free} free: {missing} more is needed.</source>
        <translation>还需要向 {folder} 写入 {size}，并且必须留出 {reserve} 的空闲空间。现在空闲 {free}：还差 {missing}。</translation>
    </message>
    <message>
        <source>It was moved or deleted, or its disk is not connected. Choose another folder.</source>
        <translation>它已被移动或删除，或所在磁盘未连接。请选择另一个文件夹。</translation>
    </message>
    <message>
        <source>Check that the disk is connected and that you may read the folder.</source>
        <translation>请检查磁盘是否已连接，以及您是否有权读取该文件夹。</translation>
    </message>
    <message>
        <source>It was moved or deleted, or its disk is not connected. Choose another one.</source>
        <translation>它已被移动或删除，或所在磁盘未连接。请选择另一个。</translation>
    </message>
    <message>
        <source>No model is open.</source>
        <translation>没有打开模型。</translation>
    </message>
    <message>
        <source>Open one first.</source>
        <translation>请先打开一个模型。</translation>
    </message>
    <message>
        <source>The engine can&apos;t be started: {why}.</source>
        <translation>无法启动引擎：{why}。</translation>
    </message>
    <message>
        <source>Free some memory, or install the program again.</source>
        <translation>请释放一些内存，或重新安装程序。</translation>
    </message>
    <message>
        <source>The engine ended while it loaded the model: {why}</source>
        <translation>引擎在加载模型时结束：{why}</translation>
    </message>
    <message>
        <source>Close other programs, or plan with less memory.</source>
        <translation>请关闭其他程序，或用较少的内存规划。</translation>
    </message>
    <message>
        <source>The window needs the package PySide6, which is not installed.</source>
        <translation>窗口需要软件包 PySide6，但它没有安装。</translation>
    </message>
    <message>
        <source>Install it: pip install &quot;cogvlm2-lite[gui]&quot;</source>
        <translation>请安装：pip install &quot;cogvlm2-lite[gui]&quot;</translation>
    </message>
    <message>
        <source>There is no desktop to open a window on.</source>
        <translation>没有可以打开窗口的桌面。</translation>
    </message>
    <message>
        <source>Use `cogvlm2-lite chat` in the terminal or `cogvlm2-lite serve` for a browser.</source>
        <translation>请在终端使用 `cogvlm2-lite chat`，或用 `cogvlm2-lite serve` 在浏览器中使用。</translation>
    </message>
    <message>
        <source>The menu entry works only on Linux desktops.</source>
        <translation>菜单项只适用于 Linux 桌面。</translation>
    </message>
    <message>
        <source>docs/desktop.md explains how to make one on Windows and macOS.</source>
        <translation>docs/desktop.md 说明了如何在 Windows 和 macOS 上创建。</translation>
    </message>
    <message>
        <source>The window opens one model, not two.</source>
        <translation>窗口只能打开一个模型，不能打开两个。</translation>
    </message>
    <message>
        <source>Name one model folder.</source>
        <translation>请只指定一个模型文件夹。</translation>
    </message>
    <message>
        <source>Check that you may read it.</source>
        <translation>请检查您是否有权读取它。</translation>
    </message>
    <message>
        <source>Free some space; nothing that was saved is lost.</source>
        <translation>请腾出空间；已保存的内容没有丢失。</translation>
    </message>
    <message>
        <source>Make it writable, then start the program again.</source>
        <translation>请使其可写，然后重新启动程序。</translation>
    </message>
    <message>
        <source>Make its folder readable and writable, then start the program again.</source>
        <translation>请使其文件夹可读可写，然后重新启动程序。</translation>
    </message>
    <message>
        <source>Another program uses the file of the conversations.</source>
        <translation>另一个程序正占用对话文件。</translation>
    </message>
    <message>
        <source>The file of the conversations is damaged or is not a database.</source>
        <translation>对话文件已损坏，或者不是数据库。</translation>
    </message>
    <message>
        <source>Move it away to start again, or restore a copy.</source>
        <translation>请移走它以重新开始，或放回一份备份。</translation>
    </message>
    <message>
        <source>Check that its disk is connected and has free space.</source>
        <translation>请检查其磁盘已连接且有空间。</translation>
    </message>
    <message>
        <source>The search was stopped.</source>
        <translation>搜索已停止。</translation>
    </message>
    <message>
        <source>This conversation no longer exists.</source>
        <translation>这个对话已不存在。</translation>
    </message>
    <message>
        <source>The conversations were written by a newer version (format {format}; this version knows {known}).</source>
        <translation>这些对话由更新的版本写入（格式 {format}；本版本支持 {known}）。</translation>
    </message>
    <message>
        <source>Make the folder readable and writable, then start the program again.</source>
        <translation>请使该文件夹可读可写，然后重新启动程序。</translation>
    </message>
    <message>
        <source>The picture can&apos;t be saved: {why}.</source>
        <translation>无法保存图片：{why}。</translation>
    </message>
    <message>
        <source>Free some space on the disk of {folder}, or make the folder writable.</source>
        <translation>请在 {folder} 所在磁盘腾出空间，或使该文件夹可写。</translation>
    </message>
    <message>
        <source>The picture of this conversation no longer exists.</source>
        <translation>这个对话的图片已不存在。</translation>
    </message>
    <message>
        <source>Only files that this program exported as JSON can be imported. Nothing was saved.</source>
        <translation>只能导入由本程序导出的 JSON 文件。没有保存任何内容。</translation>
    </message>
    <message>
        <source>{file} is not a conversation of this program.</source>
        <translation>{file} 不是本程序的对话。</translation>
    </message>
    <message>
        <source>its picture is too large</source>
        <translation>其中的图片过大</translation>
    </message>
    <message>
        <source>{file} has {size}, more than an export can have.</source>
        <translation>{file} 大小为 {size}，超过导出文件的上限。</translation>
    </message>
    <message>
        <source>Choose another file.</source>
        <translation>请选择其他文件。</translation>
    </message>
    <message>
        <source>{file} is not JSON.</source>
        <translation>{file} 不是 JSON。</translation>
    </message>
    <message>
        <source>the turn that is shown is missing</source>
        <translation>缺少正在显示的那一轮</translation>
    </message>
    <message>
        <source>{file} is damaged: {why}.</source>
        <translation>{file} 已损坏：{why}。</translation>
    </message>
    <message>
        <source>an answer about several parts lacks some of them</source>
        <translation>关于多个部分的答案缺少其中一些</translation>
    </message>
    <message>
        <source>two turns have the same number</source>
        <translation>两轮的编号相同</translation>
    </message>
    <message>
        <source>a turn comes before the one that it follows</source>
        <translation>有一轮排在它所跟随的那一轮之前</translation>
    </message>
    <message>
        <source>its picture can&apos;t be read</source>
        <translation>无法读取其中的图片</translation>
    </message>
    <message>
        <source>The settings file is damaged; the defaults are used.</source>
        <translation>设置文件已损坏；使用默认设置。</translation>
    </message>
    <message>
        <source>The settings file is damaged; the defaults are used. The file is kept as {file}.</source>
        <translation>设置文件已损坏；使用默认设置。原文件保留为 {file}。</translation>
    </message>
    <message>
        <source>The settings can&apos;t be saved: {why}.</source>
        <translation>无法保存设置：{why}。</translation>
    </message>
    <message>
        <source>The settings can&apos;t be read; the defaults are used: {why}.</source>
        <translation>无法读取设置；使用默认设置：{why}。</translation>
    </message>
    <message>
        <source>There is no home folder for this user, so there is no menu of a desktop.</source>
        <translation>当前用户没有主文件夹，因此没有桌面菜单。</translation>
    </message>
    <message>
        <source>Set the environment variable XDG_DATA_HOME to a folder that can be written.</source>
        <translation>请将环境变量 XDG_DATA_HOME 设为可写的文件夹。</translation>
    </message>
    <message>
        <source>The menu entry can&apos;t be written: {why}.</source>
        <translation>无法写入菜单项：{why}。</translation>
    </message>
    <message>
        <source>Make {folder} writable.</source>
        <translation>请使 {folder} 可写。</translation>
    </message>
    <message>
        <source>The menu entry can&apos;t be removed: {why}.</source>
        <translation>无法删除菜单项：{why}。</translation>
    </message>
    <message>
        <source>Check that it still exists and that you may read it.</source>
        <translation>请检查它是否还在，以及您是否有权读取。</translation>
    </message>
    <message>
        <source>The picture</source>
        <translation>这张图片</translation>
    </message>
    <message>
        <source>{file} is a folder, not a picture.</source>
        <translation>{file} 是文件夹，不是图片。</translation>
    </message>
    <message>
        <source>{file} is empty (0 bytes).</source>
        <translation>{file} 是空文件（0 字节）。</translation>
    </message>
    <message>
        <source>{file} has no pixels ({width} x {height}).</source>
        <translation>{file} 没有像素（{width} x {height}）。</translation>
    </message>
    <message>
        <source>{file} is {kind}, which this program does not open.</source>
        <translation>{file} 是{kind}，本程序无法打开。</translation>
    </message>
    <message>
        <source>{where} has no vision_config, so this is not a CogVLM2 image model.</source>
        <translation>{where} 中没有 vision_config，这不是 CogVLM2 图像模型。</translation>
    </message>
    <message>
        <source>{where} has tied word embeddings, which CogVLM2 lacks.</source>
        <translation>{where} 使用绑定的词嵌入（tied word embeddings），CogVLM2 没有这种结构。</translation>
    </message>
    <message>
        <source>in_channels must be 3, for red, green and blue</source>
        <translation>in_channels 必须是 3，即红、绿、蓝</translation>
    </message>
    <message>
        <source>a picture must have at least 2 x 2 patches</source>
        <translation>图片至少要有 2 x 2 个图块</translation>
    </message>
    <message>
        <source>num_positions must be {count}: the patches and CLS</source>
        <translation>num_positions 必须是 {count}：图块数加上 CLS</translation>
    </message>
    <message>
        <source>vision hidden_size must be a multiple of num_heads</source>
        <translation>视觉部分的 hidden_size 必须是 num_heads 的整数倍</translation>
    </message>
    <message>
        <source>hidden_size must be a multiple of num_attention_heads</source>
        <translation>hidden_size 必须是 num_attention_heads 的整数倍</translation>
    </message>
    <message>
        <source>hidden_size / num_attention_heads must be even, because RoPE turns pairs</source>
        <translation>hidden_size / num_attention_heads 必须是偶数，因为 RoPE 成对旋转</translation>
    </message>
    <message>
        <source>num_attention_heads must be a multiple of num_multi_query_heads</source>
        <translation>num_attention_heads 必须是 num_multi_query_heads 的整数倍</translation>
    </message>
    <message>
        <source>hidden_act must be gelu in the vision tower and silu in the decoder</source>
        <translation>hidden_act 在视觉塔中必须是 gelu，在解码器中必须是 silu</translation>
    </message>
    <message>
        <source>template_version must be one of {names}</source>
        <translation>template_version 必须是以下之一：{names}</translation>
    </message>
    <message>
        <source>token ids must be below vocab_size, {count}</source>
        <translation>token 编号必须小于 vocab_size，即 {count}</translation>
    </message>
    <message>
        <source>{where} is not valid: {why}.</source>
        <translation>{where} 无效：{why}。</translation>
    </message>
    <message>
        <source>a number from {least} to {most}</source>
        <translation>{least} 到 {most} 之间的数</translation>
    </message>
    <message>
        <source>{where} has unknown keys: {names}.</source>
        <translation>{where} 中有未知的键：{names}。</translation>
    </message>
    <message>
        <source>{where} lacks {names}.</source>
        <translation>{where} 缺少 {names}。</translation>
    </message>
    <message>
        <source>a string</source>
        <translation>字符串</translation>
    </message>
    <message>
        <source>an id or a list of ids</source>
        <translation>一个编号或编号列表</translation>
    </message>
    <message>
        <source>a whole number from {least} to {most}</source>
        <translation>{least} 到 {most} 之间的整数</translation>
    </message>
    <message>
        <source>{key} must be {expected}, not {value!r}.</source>
        <translation>{key} 必须是{expected}，而不是 {value!r}。</translation>
    </message>
    <message>
        <source>No {kind} GPU can be used: {why}.</source>
        <translation>没有可用的 {kind} GPU：{why}。</translation>
    </message>
    <message>
        <source>the CPU has no bfloat16 instructions</source>
        <translation>CPU 没有 bfloat16 指令</translation>
    </message>
    <message>
        <source>the CPU has AVX512-BF16</source>
        <translation>CPU 支持 AVX512-BF16</translation>
    </message>
    <message>
        <source>torch is a CPU build</source>
        <translation>torch 是 CPU 版本</translation>
    </message>
    <message>
        <source>cuda:{index} ({name}) has compute capability {version}, but this torch needs {least} or more</source>
        <translation>cuda:{index}（{name}）的计算能力为 {version}，而这个 torch 需要 {least} 或更高</translation>
    </message>
    <message>
        <source>the GPU has no bfloat16, so float16</source>
        <translation>GPU 不支持 bfloat16，因此用 float16</translation>
    </message>
    <message>
        <source>the GPU computes bfloat16</source>
        <translation>GPU 支持 bfloat16</translation>
    </message>
    <message>
        <source>Free some space or make its folder writable, then run the same command to resume.</source>
        <translation>请腾出空间或使其所在文件夹可写，然后运行同一命令继续。</translation>
    </message>
    <message>
        <source>{folder} has no pictures ({kinds}).</source>
        <translation>{folder} 中没有图片（{kinds}）。</translation>
    </message>
    <message>
        <source>No picture was chosen.</source>
        <translation>没有选择图片。</translation>
    </message>
    <message>
        <source>Choose at least one.</source>
        <translation>请至少选择一张。</translation>
    </message>
    <message>
        <source>{name} is not a path below {folder}.</source>
        <translation>{name} 不是 {folder} 之下的路径。</translation>
    </message>
    <message>
        <source>Name pictures by their paths below the folder, with / between names.</source>
        <translation>请用相对于该文件夹的路径指定图片，各级名称之间用 /。</translation>
    </message>
    <message>
        <source>The text file can&apos;t be written: {why}.</source>
        <translation>无法写入文本文件：{why}。</translation>
    </message>
    <message>
        <source>Choose another folder with --output.</source>
        <translation>请用 --output 指定其他文件夹。</translation>
    </message>
    <message>
        <source>Move it away, or choose another folder with --output.</source>
        <translation>请把它移走，或用 --output 指定其他文件夹。</translation>
    </message>
    <message>
        <source>ask takes one picture and one question, not {count} arguments.</source>
        <translation>ask 接受一张图片和一个问题，而不是 {count} 个参数。</translation>
    </message>
    <message>
        <source>Put the question in quotation marks. The model takes one picture.</source>
        <translation>请给问题加上引号。模型只接受一张图片。</translation>
    </message>
    <message>
        <source>The question is empty.</source>
        <translation>问题是空的。</translation>
    </message>
    <message>
        <source>Write it in quotation marks: &quot;What is it?&quot;</source>
        <translation>请写在引号里：&quot;What is it?&quot;</translation>
    </message>
    <message>
        <source>{file} is a file, and there is no question about it.</source>
        <translation>{file} 是文件，但没有关于它的问题。</translation>
    </message>
    <message>
        <source>Add one: cogvlm2-lite ask MODEL {file} &quot;What is in the picture?&quot;</source>
        <translation>请加上问题：cogvlm2-lite ask MODEL {file} &quot;What is in the picture?&quot;</translation>
    </message>
    <message>
        <source>--page needs a picture.</source>
        <translation>--page 需要一张图片。</translation>
    </message>
    <message>
        <source>Put the file before the question.</source>
        <translation>请把文件放在问题之前。</translation>
    </message>
    <message>
        <source>--limit must be 1 or more, not {value}.</source>
        <translation>--limit 必须是 1 或更大，而不是 {value}。</translation>
    </message>
    <message>
        <source>Use a text file with one path per line.</source>
        <translation>请指定一个每行一个路径的文本文件。</translation>
    </message>
    <message>
        <source>--layers works only with {model}.</source>
        <translation>--layers 只能与 {model} 一起使用。</translation>
    </message>
    <message>
        <source>A folder is measured with the layers it has.</source>
        <translation>对文件夹会按其已有的层数测量。</translation>
    </message>
    <message>
        <source>--layers must be a number from 1 to 32 or all, not {value!r}.</source>
        <translation>--layers 必须是 1 到 32 之间的数或 all，而不是 {value!r}。</translation>
    </message>
    <message>
        <source>Add --image FILE.</source>
        <translation>请加上 --image FILE。</translation>
    </message>
    <message>
        <source>There is no picture yet.</source>
        <translation>还没有图片。</translation>
    </message>
    <message>
        <source>/image FILE opens one.</source>
        <translation>用 /image FILE 打开一张。</translation>
    </message>
    <message>
        <source>/save needs a file name.</source>
        <translation>/save 需要文件名。</translation>
    </message>
    <message>
        <source>For example /save chat.md</source>
        <translation>例如 /save chat.md</translation>
    </message>
    <message>
        <source>{text} is not the number of a page.</source>
        <translation>{text} 不是页码。</translation>
    </message>
    <message>
        <source>For example /page 2</source>
        <translation>例如 /page 2</translation>
    </message>
    <message>
        <source>Unknown command {name}.</source>
        <translation>未知命令 {name}。</translation>
    </message>
    <message>
        <source>Did you mean {near}?</source>
        <translation>您是指 {near} 吗？</translation>
    </message>
    <message>
        <source>/help lists the commands.</source>
        <translation>/help 会列出所有命令。</translation>
    </message>
    <message>
        <source>{file} can&apos;t be written: it is a folder.</source>
        <translation>无法写入 {file}：它是文件夹。</translation>
    </message>
    <message>
        <source>{file} can&apos;t be written: the folder {folder} does not exist.</source>
        <translation>无法写入 {file}：文件夹 {folder} 不存在。</translation>
    </message>
    <message>
        <source>The demo model could not be converted to 4 bits; the reason is shown above.</source>
        <translation>无法把演示模型转换为 4 位；原因见上。</translation>
    </message>
    <message>
        <source>Unknown option {name!r}.</source>
        <translation>未知选项 {name!r}。</translation>
    </message>
    <message>
        <source>Unknown command {name!r}.</source>
        <translation>未知命令 {name!r}。</translation>
    </message>
    <message>
        <source>See `cogvlm2-lite --help`.</source>
        <translation>请参阅 `cogvlm2-lite --help`。</translation>
    </message>
    <message>
        <source>See `{command} --help`.</source>
        <translation>请参阅 `{command} --help`。</translation>
    </message>
    <message>
        <source>--parallel must be between 1 and {most}, not {value}.</source>
        <translation>--parallel 必须在 1 到 {most} 之间，而不是 {value}。</translation>
    </message>
    <message>
        <source>Each conversation needs its own key/value cache; `cogvlm2-lite plan` shows how large.</source>
        <translation>每个对话都需要自己的键值缓存；`cogvlm2-lite plan` 会显示其大小。</translation>
    </message>
    <message>
        <source>{command} has no option {name!r}.</source>
        <translation>{command} 没有选项 {name!r}。</translation>
    </message>
    <message>
        <source>{command} does not take the argument {name!r}.</source>
        <translation>{command} 不接受参数 {name!r}。</translation>
    </message>
    <message>
        <source>A picture takes {picture} of the {context} tokens of context, which leaves none for a question.</source>
        <translation>一张图片占用 {context} 个上下文 token 中的 {picture} 个，没有给问题留下空间。</translation>
    </message>
    <message>
        <source>Use a larger --context, or plan with --no-picture.</source>
        <translation>请使用更大的 --context，或用 --no-picture 计划。</translation>
    </message>
    <message>
        <source>--port must be between 0 and 65535, not {value}.</source>
        <translation>--port 必须在 0 到 65535 之间，而不是 {value}。</translation>
    </message>
    <message>
        <source>There are two API keys.</source>
        <translation>有两个 API 密钥。</translation>
    </message>
    <message>
        <source>--{name} must be above 0.</source>
        <translation>--{name} 必须大于 0。</translation>
    </message>
    <message>
        <source>The name {file} must end in .md or .json.</source>
        <translation>文件名 {file} 必须以 .md 或 .json 结尾。</translation>
    </message>
    <message>
        <source>There is nothing to save yet.</source>
        <translation>还没有可保存的内容。</translation>
    </message>
    <message>
        <source>Ask something first.</source>
        <translation>请先提一个问题。</translation>
    </message>
    <message>
        <source>{file} already exists and is not overwritten.</source>
        <translation>{file} 已存在，不会被覆盖。</translation>
    </message>
    <message>
        <source>Choose another name.</source>
        <translation>请选择其他名称。</translation>
    </message>
    <message>
        <source>{count} of these do not record their model and settings, because version 0.2 wrote them; they stand unless you ask again.</source>
        <translation>其中 {count} 个回答由 0.2 版写入，没有记录模型和设置；除非重新询问，否则继续有效。</translation>
    </message>
    <message>
        <source>Choose a file in another folder.</source>
        <translation>请选择其他文件夹中的文件。</translation>
    </message>
    <message>
        <source>{file} does not contain a JSON object.</source>
        <translation>{file} 的内容不是 JSON 对象。</translation>
    </message>
    <message>
        <source>Choose the folder that contains config.json and the .safetensors files.</source>
        <translation>请选择包含 config.json 和 .safetensors 文件的文件夹。</translation>
    </message>
    <message>
        <source>{file} is nested too deeply.</source>
        <translation>{file} 的嵌套过深。</translation>
    </message>
    <message>
        <source>The demo model is not part of this installation.</source>
        <translation>演示模型不在此安装之中。</translation>
    </message>
    <message>
        <source>Install the package again from a complete source.</source>
        <translation>请从完整的来源重新安装软件包。</translation>
    </message>
    <message>
        <source>There is no folder {name!r}.</source>
        <translation>没有文件夹 {name!r}。</translation>
    </message>
    <message>
        <source>Choose the folder of a downloaded checkpoint (this program downloads nothing), or `{demo}` for the small included model.</source>
        <translation>请选择已下载模型的文件夹（本程序不下载任何内容），或用 `{demo}` 使用附带的小模型。</translation>
    </message>
    <message>
        <source>{name!r} is a file, but a model is a folder.</source>
        <translation>{name!r} 是文件，而模型是文件夹。</translation>
    </message>
    <message>
        <source>The demo pictures are not part of this installation.</source>
        <translation>演示图片不在此安装之中。</translation>
    </message>
    <message>
        <source>folders that are links: {count}</source>
        <translation>作为链接的文件夹：{count} 个</translation>
    </message>
    <message>
        <source>subfolders that were not searched: {count}</source>
        <translation>未搜索的子文件夹：{count} 个</translation>
    </message>
    <message>
        <source>unfinished downloads: {count}</source>
        <translation>未完成的下载：{count} 个</translation>
    </message>
    <message>
        <source>pictures whose names do not end like those of pictures (.jpg): {count}</source>
        <translation>文件名没有图片扩展名（如 .jpg）的图片：{count} 个</translation>
    </message>
    <message>
        <source>{count} of these are not in UTF-8, so nothing is added: they are kept, and their answers are in answers.jsonl.</source>
        <translation>其中 {count} 个不是 UTF-8 编码，因此不添加内容：它们保持不变，其答案在 answers.jsonl 中。</translation>
    </message>
    <message>
        <source>{count} of these had the answer before they were edited, so it is not added again.</source>
        <translation>其中 {count} 个在被编辑之前已有该答案，因此不再添加。</translation>
    </message>
    <message>
        <source>Free some space, or close the program that has the table open. Then run the same command to resume.</source>
        <translation>请释放一些空间，或关闭打开该表格的程序，然后运行同一命令以继续。</translation>
    </message>
    <message>
        <source>--tile must be 1, not {value}: the picture is nearly square and is not cut.</source>
        <translation>--tile 必须是 1，而不是 {value}：图片接近正方形，不会被切分。</translation>
    </message>
    <message>
        <source>--tile must be between 1 and {most}, not {value}: the picture is cut into {most} parts.</source>
        <translation>--tile 必须在 1 和 {most} 之间，而不是 {value}：图片被切分为 {most} 个部分。</translation>
    </message>
    <message>
        <source>The picture can&apos;t be read from standard input: {why}.</source>
        <translation>无法从标准输入读取图片：{why}。</translation>
    </message>
    <message>
        <source>Check what it is redirected from.</source>
        <translation>请检查它是从哪里重定向的。</translation>
    </message>
    <message>
        <source>--{name} needs a picture.</source>
        <translation>--{name} 需要一张图片。</translation>
    </message>
    <message>
        <source>Standard input can&apos;t be read: {why}.</source>
        <translation>无法读取标准输入：{why}。</translation>
    </message>
    <message>
        <source>Standard output is closed, so the result can&apos;t be shown.</source>
        <translation>标准输出已关闭，因此无法显示结果。</translation>
    </message>
    <message>
        <source>Redirect it to a file: &gt; result.txt</source>
        <translation>请将其重定向到文件：&gt; result.txt</translation>
    </message>
    <message>
        <source>No folder is named, so no picture could be used.</source>
        <translation>未指定文件夹，因此无法使用任何图片。</translation>
    </message>
    <message>
        <source>Add --folder FOLDER with the folder that contains the pictures.</source>
        <translation>请添加 --folder FOLDER，指定包含图片的文件夹。</translation>
    </message>
    <message>
        <source>Add --http.</source>
        <translation>请添加 --http。</translation>
    </message>
    <message>
        <source>This command needs the package {package}, which is not installed.</source>
        <translation>此命令需要软件包 {package}，但它未安装。</translation>
    </message>
    <message>
        <source>The share of --replay must be above 0 and at most 1, not {value}.</source>
        <translation>--replay 的份额必须大于 0 且不超过 1，而不是 {value}。</translation>
    </message>
    <message>
        <source>{folder} exists and has files that finetune did not write.</source>
        <translation>{folder} 已存在，其中有不是 finetune 写入的文件。</translation>
    </message>
    <message>
        <source>Choose a new folder for the adapter.</source>
        <translation>请为适配器选择一个新文件夹。</translation>
    </message>
    <message>
        <source>{folder} can&apos;t be written to: {why}.</source>
        <translation>无法写入 {folder}：{why}。</translation>
    </message>
    <message>
        <source>Free some space, then run the same command again: it continues.</source>
        <translation>请释放一些空间，然后再次运行同一命令：它会继续。</translation>
    </message>
    <message>
        <source>--context must be 1 or more, not {value}.</source>
        <translation>--context 必须大于或等于 1，不能是 {value}。</translation>
    </message>
    <message>
        <source>The file {file} with the API key can&apos;t be read: {why}.</source>
        <translation>无法读取包含 API 密钥的文件 {file}：{why}。</translation>
    </message>
    <message>
        <source>{device} ({name}): {maker} GPUs are untested on real hardware. If answers look wrong, use --device cpu.</source>
        <translation>{device}（{name}）：{maker} 的 GPU 尚未在真实硬件上测试过。如果回答看起来不对，请使用 --device cpu。</translation>
    </message>
    <message>
        <source>torch is built for {version} and finds no GPU</source>
        <translation>torch 是为 {version} 构建的，但没有找到 GPU</translation>
    </message>
    <message>
        <source>No {maker} GPU can be used: {why}.</source>
        <translation>没有可用的 {maker} GPU：{why}。</translation>
    </message>
    <message>
        <source>Use --device cpu, or install the {build} wheel of torch (see README) and a driver.</source>
        <translation>请使用 --device cpu，或安装 torch 的 {build} 版本（见 README）和驱动。</translation>
    </message>
    <message>
        <source>cuda:{index} ({name}) has the architecture {architecture}, but this torch is built for {names}</source>
        <translation>cuda:{index}（{name}）的架构为 {architecture}，而这个 torch 是为 {names} 构建的</translation>
    </message>
    <message>
        <source>torch is built for {version}, and this GPU needs a build for {build}</source>
        <translation>torch 是为 {version} 构建的，而这块 GPU 需要 {build} 版本</translation>
    </message>
    <message>
        <source>untested on real hardware: this GPU path has not been measured on your kind of card</source>
        <translation>尚未在真实硬件上测试：还没有在您这类显卡上测量过这条 GPU 路径</translation>
    </message>
    <message>
        <source>measured on {date} with torch {torch}: {rate} tokens/s, a new picture in {seconds}</source>
        <translation>已于 {date} 用 torch {torch} 测量：{rate} 个 token/秒，新图片用时 {seconds}</translation>
    </message>
    <message>
        <source>this GPU path has not been measured on your kind of card</source>
        <translation>还没有在您这类显卡上测量过这条 GPU 路径</translation>
    </message>
    <message>
        <source>Use --device cpu; Apple&apos;s GPUs need macOS and an Apple chip.</source>
        <translation>请使用 --device cpu；Apple 的 GPU 需要 macOS 和 Apple 芯片。</translation>
    </message>
    <message>
        <source>torch is not built for MPS</source>
        <translation>torch 不是为 MPS 构建的</translation>
    </message>
    <message>
        <source>torch is built for MPS and finds no GPU of Apple</source>
        <translation>torch 是为 MPS 构建的，但没有找到 Apple 的 GPU</translation>
    </message>
    <message>
        <source>torch is not built for XPU</source>
        <translation>torch 不是为 XPU 构建的</translation>
    </message>
    <message>
        <source>torch is built for XPU and finds no GPU</source>
        <translation>torch 是为 XPU 构建的，但没有找到 GPU</translation>
    </message>
    <message>
        <source>--draft-text-suffix must be the end of a file name, not {value!r}.</source>
        <translation>--draft-text-suffix 必须是文件名的结尾，不能是 {value!r}。</translation>
    </message>
    <message>
        <source>For example .txt</source>
        <translation>例如 .txt</translation>
    </message>
    <message>
        <source>Pictures with a draft text: {count} of {total}.</source>
        <translation>有草稿文本的图片：{count}/{total}。</translation>
    </message>
    <message>
        <source>Write a key of at least 16 characters to a file, and name it.</source>
        <translation>请把至少 16 个字符的密钥写入一个文件，并指定该文件。</translation>
    </message>
    <message>
        <source>Standard input can&apos;t be both the picture and the draft text.</source>
        <translation>标准输入不能既是图片又是草稿文本。</translation>
    </message>
    <message>
        <source>Write one of them to a file.</source>
        <translation>请将其中之一写入文件。</translation>
    </message>
    <message>
        <source>--seed must be 0 or more, not {value}.</source>
        <translation>--seed 必须至少为 0，而不是 {value}。</translation>
    </message>
    <message>
        <source>--predictions can&apos;t be combined with {option}.</source>
        <translation>--predictions 不能与 {option} 同时使用。</translation>
    </message>
    <message>
        <source>--score-only can&apos;t be combined with --restart: nothing is asked.</source>
        <translation>--score-only 不能与 --restart 同时使用：不会提问。</translation>
    </message>
    <message>
        <source>{option} must be 1 or more, not {value}.</source>
        <translation>{option} 必须至少为 1，而不是 {value}。</translation>
    </message>
    <message>
        <source>{option} needs a single benchmark.</source>
        <translation>{option} 只能用于单个基准测试。</translation>
    </message>
    <message>
        <source>The benchmark {name} is named twice.</source>
        <translation>基准测试 {name} 被指定了两次。</translation>
    </message>
    <message>
        <source>There is no run of {name} in {folder}.</source>
        <translation>{folder} 中没有 {name} 的运行记录。</translation>
    </message>
    <message>
        <source>Ask that model the same benchmarks first, or compare one benchmark at a time.</source>
        <translation>请先让该模型回答相同的基准测试，或每次只比较一个基准测试。</translation>
    </message>
    <message>
        <source>Both models have the name {name}, so their answers would be in the same folder.</source>
        <translation>两个模型的名称都是 {name}，因此它们的回答会位于同一文件夹中。</translation>
    </message>
    <message>
        <source>{folder} is the run of the model itself, so there is nothing to compare.</source>
        <translation>{folder} 就是该模型自己的运行记录，因此没有可比较的内容。</translation>
    </message>
    <message>
        <source>Name the folder of another run after --against.</source>
        <translation>请在 --against 之后指定另一个运行记录的文件夹。</translation>
    </message>
    <message>
        <source>--card works only with --plan.</source>
        <translation>--card 只能与 --plan 一起使用。</translation>
    </message>
    <message>
        <source>There is no tokenizer, so the numbers of tokens are estimates.</source>
        <translation>没有分词器，因此 token 数量是估计值。</translation>
    </message>
    <message>
        <source>If the file of this name is meant, write ./{name}.</source>
        <translation>如果指的是这个名称的文件，请写成 ./{name}。</translation>
    </message>
    <message>
        <source>The output can&apos;t be written: {why}.</source>
        <translation>无法写入输出：{why}。</translation>
    </message>
    <message>
        <source>Check the disk and the file that standard output is redirected to.</source>
        <translation>请检查磁盘以及标准输出所重定向到的文件。</translation>
    </message>
    <message>
        <source>The text &apos;{text}&apos; can&apos;t be read: it is neither UTF-8 nor in the encoding of the locale.</source>
        <translation>无法读取文本“{text}”：它既不是 UTF-8，也不是区域设置的编码。</translation>
    </message>
    <message>
        <source>Use UTF-8, or set LC_ALL to the encoding of the text, such as zh_CN.GBK.</source>
        <translation>请使用 UTF-8，或将 LC_ALL 设为该文本的编码，例如 zh_CN.GBK。</translation>
    </message>
    <message>
        <source>It seems to be UTF-16. Save the text as UTF-8 and try again.</source>
        <translation>它似乎是 UTF-16。请将文本另存为 UTF-8 后重试。</translation>
    </message>
    <message>
        <source>CogVLM2 Lite runs cogvlm2-llama3-chat-19B, cogvlm2-llama3-chinese-chat-19B and models fine-tuned from them.</source>
        <translation>CogVLM2 Lite 可运行 cogvlm2-llama3-chat-19B、cogvlm2-llama3-chinese-chat-19B 以及由它们微调的模型。</translation>
    </message>
    <message>
        <source>{where}: the weights are quantized with {method}, which CogVLM2 Lite can&apos;t read.</source>
        <translation>{where}：权重是用 {method} 量化的，CogVLM2 Lite 无法读取。</translation>
    </message>
    <message>
        <source>Use the released 16-bit checkpoint, a folder that quantize wrote, or a 4-bit folder of bitsandbytes.</source>
        <translation>请使用发布的 16 位检查点、quantize 生成的文件夹，或 bitsandbytes 的 4 位文件夹。</translation>
    </message>
    <message>
        <source>{where}: this is {name}, which CogVLM2 Lite does not run.</source>
        <translation>{where}：这是 {name}，CogVLM2 Lite 不支持运行它。</translation>
    </message>
    <message>
        <source>{where}: this is {name}, which CogVLM2 Lite does not run. {why}</source>
        <translation>{where}：这是 {name}，CogVLM2 Lite 不支持运行它。{why}</translation>
    </message>
    <message>
        <source>Choose the folder of a downloaded checkpoint (this program downloads nothing), `{demo}` for the small included model, or `{released}` for the released model.</source>
        <translation>请选择已下载的检查点的文件夹（本程序不会下载任何内容）；`{demo}` 表示自带的小模型，`{released}` 表示已发布的模型。</translation>
    </message>
    <message>
        <source>The folder {name!r} can&apos;t be read: {why}.</source>
        <translation>无法读取文件夹 {name!r}：{why}。</translation>
    </message>
    <message>
        <source>Check the path and its permissions.</source>
        <translation>请检查路径及其权限。</translation>
    </message>
    <message>
        <source>Unknown device {name!r}.</source>
        <translation>未知设备 {name!r}。</translation>
    </message>
    <message>
        <source>Use one of {names}, or cuda:1.</source>
        <translation>请使用 {names} 之一，或 cuda:1。</translation>
    </message>
    <message>
        <source>Unknown number type {name!r}.</source>
        <translation>未知数值类型 {name!r}。</translation>
    </message>
    <message>
        <source>Use one of {names}.</source>
        <translation>请使用以下之一：{names}。</translation>
    </message>
    <message>
        <source>The GPU {device} can&apos;t be used ({why}).</source>
        <translation>无法使用 GPU {device}（{why}）。</translation>
    </message>
    <message>
        <source>There is no GPU {device}.</source>
        <translation>没有 GPU {device}。</translation>
    </message>
    <message>
        <source>Available GPUs: {names}.</source>
        <translation>可用的 GPU：{names}。</translation>
    </message>
    <message>
        <source>{name} was requested</source>
        <translation>指定了 {name}</translation>
    </message>
    <message>
        <source>The GPU {device} ({name}) does not compute {dtype}: it would emulate it, several times slower.</source>
        <translation>GPU {device}（{name}）不支持 {dtype} 运算：只能模拟，速度会慢好几倍。</translation>
    </message>
    <message>
        <source>Use --dtype float16 or --dtype auto.</source>
        <translation>请使用 --dtype float16 或 --dtype auto。</translation>
    </message>
    <message>
        <source>no driver is installed</source>
        <translation>没有安装驱动</translation>
    </message>
    <message>
        <source>The context is full: the answer has {count} tokens and can&apos;t continue.</source>
        <translation>上下文已满：回答已有 {count} 个 token，无法继续。</translation>
    </message>
    <message>
        <source>Ask a new question; the oldest turns are then left out.</source>
        <translation>请提一个新问题；届时会略去最早的几轮。</translation>
    </message>
    <message>
        <source>{param} has a token that is not between 0 and {most}.</source>
        <translation>{param} 中有一个token不在 0 到 {most} 之间。</translation>
    </message>
    <message>
        <source>The answer began to repeat itself and was stopped.</source>
        <translation>回答开始重复自身，已被停止。</translation>
    </message>
    <message>
        <source>The context is full, so the answer ends here.</source>
        <translation>上下文已满，回答到此结束。</translation>
    </message>
    <message>
        <source>The model&apos;s vocabulary has no token with which the answer could continue as JSON.</source>
        <translation>模型的词表中没有能让回答继续成为 JSON 的 token。</translation>
    </message>
    <message>
        <source>Ask without json_object.</source>
        <translation>请不要使用 json_object。</translation>
    </message>
    <message>
        <source>The answer can&apos;t be kept JSON any longer: {why}.</source>
        <translation>无法让回答继续保持为 JSON：{why}。</translation>
    </message>
    <message>
        <source>it has more than {most} characters</source>
        <translation>它超过 {most} 个字符</translation>
    </message>
    <message>
        <source>it must be an object</source>
        <translation>它必须是一个对象</translation>
    </message>
    <message>
        <source>Answers in JSON need the package llguidance, which is not installed.</source>
        <translation>JSON 回答需要 llguidance 包，但它没有安装。</translation>
    </message>
    <message>
        <source>Install it with: pip install &quot;cogvlm2-lite[server]&quot;</source>
        <translation>用以下命令安装：pip install &quot;cogvlm2-lite[server]&quot;</translation>
    </message>
    <message>
        <source>it is not JSON</source>
        <translation>它不是 JSON</translation>
    </message>
    <message>
        <source>{param} must be 1 or more, not {value}.</source>
        <translation>{param} 必须是 1 或更大，而不是 {value}。</translation>
    </message>
    <message>
        <source>Unknown value {value!r} for {param}.</source>
        <translation>{param} 的值 {value!r} 未知。</translation>
    </message>
    <message>
        <source>Too many pictures for one conversation: {count}; the model takes {most}.</source>
        <translation>一个对话的图片过多：{count} 张；模型接受 {most} 张。</translation>
    </message>
    <message>
        <source>Ask about each picture in a separate conversation, or combine them into one.</source>
        <translation>请在不同的对话中询问每张图片，或把它们合成一张。</translation>
    </message>
    <message>
        <source>pixel_values must have the shape [batch, {expected}], not {shape}.</source>
        <translation>pixel_values 的形状必须是 [batch, {expected}]，而不是 {shape}。</translation>
    </message>
    <message>
        <source>The prompt has places for {expected} image tokens, not for {count}.</source>
        <translation>提示中有 {expected} 个图像 token 的位置，而不是 {count} 个。</translation>
    </message>
    <message>
        <source>input_ids must have the shape [batch, tokens], not {shape}.</source>
        <translation>input_ids 的形状必须是 [batch, tokens]，而不是 {shape}。</translation>
    </message>
    <message>
        <source>input_ids must be between 0 and {most}.</source>
        <translation>input_ids 必须在 0 到 {most} 之间。</translation>
    </message>
    <message>
        <source>Not every GPU is used: {why}.</source>
        <translation>没有使用全部 GPU：{why}。</translation>
    </message>
    <message>
        <source>--vram has no effect: the model runs on the CPU, in RAM.</source>
        <translation>--vram 没有作用：模型在 CPU 上运行，使用内存。</translation>
    </message>
    <message>
        <source>the numbers of this model are too large for float16</source>
        <translation>此模型的数值超出了 float16 的范围</translation>
    </message>
    <message>
        <source>{name} must have the shape of input_ids, {expected}, not {shape}.</source>
        <translation>{name} 的形状必须与 input_ids 相同，即 {expected}，而不是 {shape}。</translation>
    </message>
    <message>
        <source>No GPU is used: {why}.</source>
        <translation>没有使用 GPU：{why}。</translation>
    </message>
    <message>
        <source>The numbers of this model are too large for float16.</source>
        <translation>此模型的数值超出了 float16 的范围。</translation>
    </message>
    <message>
        <source>Load the model in float32.</source>
        <translation>请以 float32 加载模型。</translation>
    </message>
    <message>
        <source>The GPU stopped working during the computation: {why}.</source>
        <translation>GPU 在计算过程中停止工作：{why}。</translation>
    </message>
    <message>
        <source>Start again, with --device cpu if it happens again; `cogvlm2-lite doctor` shows which GPUs still respond.</source>
        <translation>请重新启动；如果再次发生，请加上 --device cpu。`cogvlm2-lite doctor` 会显示哪些 GPU 仍有响应。</translation>
    </message>
    <message>
        <source>The GPU can&apos;t compute this model: {why}.</source>
        <translation>GPU 无法计算此模型：{why}。</translation>
    </message>
    <message>
        <source>Use --device cpu, or another version of torch.</source>
        <translation>请使用 --device cpu，或换用其他版本的 torch。</translation>
    </message>
    <message>
        <source>Memory ran out, and no plan needs less than {size}.</source>
        <translation>内存用尽，而任何计划都至少需要 {size}。</translation>
    </message>
    <message>
        <source>Memory ran out. {size} more of the weights now come from RAM or disk for each use; the answer continues more slowly.</source>
        <translation>内存用尽。现在每次使用时另有 {size} 权重来自内存或磁盘；回答会继续，但更慢。</translation>
    </message>
    <message>
        <source>The model is answering another question.</source>
        <translation>模型正在回答另一个问题。</translation>
    </message>
    <message>
        <source>Wait, or cancel that answer.</source>
        <translation>请等待，或取消那个回答。</translation>
    </message>
    <message>
        <source>The model is answering other questions.</source>
        <translation>模型正在回答其他问题。</translation>
    </message>
    <message>
        <source>Wait, or cancel one of them.</source>
        <translation>请等待，或取消其中一个。</translation>
    </message>
    <message>
        <source>The prompt has {count} tokens; the context has room for {context}.</source>
        <translation>提示有 {count} 个 token；上下文只能容纳 {context} 个。</translation>
    </message>
    <message>
        <source>Shorten the prompt, or load the model with a longer context.</source>
        <translation>请缩短提示，或用更长的上下文加载模型。</translation>
    </message>
    <message>
        <source>The context of {context} tokens is full.</source>
        <translation>{context} 个 token 的上下文已满。</translation>
    </message>
    <message>
        <source>Load the model with a longer context, or generate fewer tokens.</source>
        <translation>请用更长的上下文加载模型，或少生成一些 token。</translation>
    </message>
    <message>
        <source>There is an answer to the question {id!r}, but {data} has no such question.</source>
        <translation>有一个对问题 {id!r} 的回答，但 {data} 中没有这个问题。</translation>
    </message>
    <message>
        <source>Take the data that the questions came from.</source>
        <translation>请使用这些问题所来自的数据。</translation>
    </message>
    <message>
        <source>There is a grade of the question {id!r}, but {data} has no such question.</source>
        <translation>有一个对问题 {id!r} 的评分，但 {data} 中没有这个问题。</translation>
    </message>
    <message>
        <source>Take the grades of answers to these questions.</source>
        <translation>请使用针对这些问题的回答的评分。</translation>
    </message>
    <message>
        <source>{reference} and {other} have different tokenizers, so their answers can&apos;t be compared.</source>
        <translation>{reference} 与 {other} 的分词器不同，无法比较它们的回答。</translation>
    </message>
    <message>
        <source>Compare a checkpoint with folders that were made from it.</source>
        <translation>请把模型与由它制成的文件夹比较。</translation>
    </message>
    <message>
        <source>{reference} and {other} have different architectures: {name} is {value} in the first and {found} in the second.</source>
        <translation>{reference} 与 {other} 的结构不同：{name} 在前者中为 {value}，在后者中为 {found}。</translation>
    </message>
    <message>
        <source>Copy it from where the weights came from.</source>
        <translation>请从权重的来源复制它。</translation>
    </message>
    <message>
        <source>Memory ran out while {folder} was used: {why}</source>
        <translation>使用 {folder} 时内存用尽：{why}</translation>
    </message>
    <message>
        <source>Close other programs, or allow less with --vram or --ram: more is then streamed.</source>
        <translation>请关闭其他程序，或用 --vram 或 --ram 限制用量：这样会有更多权重随用随取。</translation>
    </message>
    <message>
        <source>{file} is not a complete grade file of MM-Vet&apos;s evaluator: {why}.</source>
        <translation>{file} 不是 MM-Vet 评测程序的完整评分文件：{why}。</translation>
    </message>
    <message>
        <source>Scores are numbers from 0 to 1, one for each run. Let the evaluator finish, and name its file ...-grade-Nruns.json.</source>
        <translation>评分是 0 到 1 之间的数，每轮一个。请等评测程序运行完，再指定它的文件 ...-grade-Nruns.json。</translation>
    </message>
    <message>
        <source>{file} is damaged or cut: {why}.</source>
        <translation>{file} 已损坏或不完整：{why}。</translation>
    </message>
    <message>
        <source>Write or copy the file again.</source>
        <translation>请重新写入或复制该文件。</translation>
    </message>
    <message>
        <source>{file} has no predictions.</source>
        <translation>{file} 中没有预测结果。</translation>
    </message>
    <message>
        <source>Let VLMEvalKit answer first.</source>
        <translation>请先让 VLMEvalKit 回答。</translation>
    </message>
    <message>
        <source>{file} is neither a .tsv nor a .json file.</source>
        <translation>{file} 既不是 .tsv 文件，也不是 .json 文件。</translation>
    </message>
    <message>
        <source>Let VLMEvalKit write its predictions with PRED_FORMAT=tsv or PRED_FORMAT=json.</source>
        <translation>请用 PRED_FORMAT=tsv 或 PRED_FORMAT=json 让 VLMEvalKit 写出预测结果。</translation>
    </message>
    <message>
        <source>{file} has no column {name!r}.</source>
        <translation>{file} 没有 {name!r} 列。</translation>
    </message>
    <message>
        <source>A prediction file of VLMEvalKit has the columns index and prediction.</source>
        <translation>VLMEvalKit 的预测文件有 index 和 prediction 两列。</translation>
    </message>
    <message>
        <source>Free some space, or check that you may write there.</source>
        <translation>请腾出一些空间，或检查您是否有写入权限。</translation>
    </message>
    <message>
        <source>{file}, row {row}: {data} has no question with the index {index!r}.</source>
        <translation>{file} 第 {row} 行：{data} 中没有 index 为 {index!r} 的问题。</translation>
    </message>
    <message>
        <source>Name the prediction file of this benchmark and of this version of its data.</source>
        <translation>请指定该基准及其这一版数据的预测文件。</translation>
    </message>
    <message>
        <source>Check the spelling of the path, and that you may read it.</source>
        <translation>请检查路径的拼写，以及您是否有读取权限。</translation>
    </message>
    <message>
        <source>{file} is not in UTF-8 ({where}).</source>
        <translation>{file} 不是 UTF-8 编码（{where}）。</translation>
    </message>
    <message>
        <source>Save it in UTF-8, or get it again.</source>
        <translation>请另存为 UTF-8 编码，或重新获取该文件。</translation>
    </message>
    <message>
        <source>Get the file again.</source>
        <translation>请重新获取该文件。</translation>
    </message>
    <message>
        <source>{file} is a Git LFS pointer: the download is incomplete.</source>
        <translation>{file} 是 Git LFS 指针：下载不完整。</translation>
    </message>
    <message>
        <source>{file} is not a text file in UTF-8.</source>
        <translation>{file} 不是 UTF-8 文本文件。</translation>
    </message>
    <message>
        <source>Save it in UTF-8.</source>
        <translation>请另存为 UTF-8 编码。</translation>
    </message>
    <message>
        <source>{where} names the picture {name!r}, which is outside of the data folder.</source>
        <translation>{where} 引用的图片 {name!r} 位于数据文件夹之外。</translation>
    </message>
    <message>
        <source>Use an unchanged copy of the file.</source>
        <translation>请使用未经修改的文件副本。</translation>
    </message>
    <message>
        <source>{count} of {all} picture files are missing; the first is {name}.</source>
        <translation>{all} 个图片文件中缺少 {count} 个，第一个是 {name}。</translation>
    </message>
    <message>
        <source>Put the pictures of the benchmark next to its file, as its authors pack them.</source>
        <translation>请按作者发布的目录结构，把基准测试的图片放在其文件旁边。</translation>
    </message>
    <message>
        <source>The picture {name} is a Git LFS pointer: the download is incomplete.</source>
        <translation>图片 {name} 是 Git LFS 指针：下载不完整。</translation>
    </message>
    <message>
        <source>Run `git lfs pull` in its folder, or download the pictures themselves.</source>
        <translation>请在其文件夹中运行 `git lfs pull`，或下载图片本身。</translation>
    </message>
    <message>
        <source>Several files have the questions of {title}: {first} and {second}.</source>
        <translation>有多个文件包含 {title} 的问题：{first} 和 {second}。</translation>
    </message>
    <message>
        <source>Name one of them with --data.</source>
        <translation>请用 --data 指定其中一个。</translation>
    </message>
    <message>
        <source>{file} has no answers (its authors keep them); take the files of the split {right!r}.</source>
        <translation>{file} 没有答案（作者未公开）；请使用划分 {right!r} 的文件。</translation>
    </message>
    <message>
        <source>{file} is the split {split!r}, but {title} is asked with the split {right!r}.</source>
        <translation>{file} 是划分 {split!r}，而 {title} 使用划分 {right!r} 提问。</translation>
    </message>
    <message>
        <source>Name a file of that split, or the folder.</source>
        <translation>请指定该划分的文件，或指定文件夹。</translation>
    </message>
    <message>
        <source>{file} has no answers (its authors keep them); take the validation file, {instead}.</source>
        <translation>{file} 没有答案（作者未公开）；请使用验证集文件 {instead}。</translation>
    </message>
    <message>
        <source>{file} has no answers; take {instead}.</source>
        <translation>{file} 没有答案；请使用 {instead}。</translation>
    </message>
    <message>
        <source>With --export, answers for a server can be written without a score.</source>
        <translation>使用 --export 可以写出供服务器评分的回答，但不计算分数。</translation>
    </message>
    <message>
        <source>Put {file} into {folder}, or name a file or folder with --data.</source>
        <translation>请把 {file} 放入 {folder}，或用 --data 指定文件或文件夹。</translation>
    </message>
    <message>
        <source>No files of {title} were found in {places}.</source>
        <translation>在 {places} 中未找到 {title} 的文件。</translation>
    </message>
    <message>
        <source>Unknown benchmark {name!r}: it is neither a name nor a file.</source>
        <translation>未知的基准测试 {name!r}：它既不是名称，也不是文件。</translation>
    </message>
    <message>
        <source>Choose one of {names}, or the path of a data file.</source>
        <translation>请选择 {names} 之一，或给出数据文件的路径。</translation>
    </message>
    <message>
        <source>The demo benchmark is not part of this installation.</source>
        <translation>此安装不包含演示基准测试。</translation>
    </message>
    <message>
        <source>There is no file or folder {path}.</source>
        <translation>没有文件或文件夹 {path}。</translation>
    </message>
    <message>
        <source>Check the spelling.</source>
        <translation>请检查拼写。</translation>
    </message>
    <message>
        <source>{path} is neither a file nor a folder.</source>
        <translation>{path} 既不是文件，也不是文件夹。</translation>
    </message>
    <message>
        <source>Name a data file.</source>
        <translation>请指定一个数据文件。</translation>
    </message>
    <message>
        <source>{folder} has files of several benchmarks: {names}.</source>
        <translation>{folder} 中有多个基准测试的文件：{names}。</translation>
    </message>
    <message>
        <source>Name the benchmark, and this folder with --data.</source>
        <translation>请指定基准测试的名称，并用 --data 指定此文件夹。</translation>
    </message>
    <message>
        <source>The questions in {file} are not in the layout of a known benchmark.</source>
        <translation>{file} 中问题的格式不属于任何已知的基准测试。</translation>
    </message>
    <message>
        <source>Use the file of the benchmark&apos;s authors, or a TSV file as VLMEvalKit has them.</source>
        <translation>请使用基准测试作者的文件，或 VLMEvalKit 格式的 TSV 文件。</translation>
    </message>
    <message>
        <source>{file} has the questions of {named}, not of {wanted}.</source>
        <translation>{file} 中是 {named} 的问题，而不是 {wanted} 的问题。</translation>
    </message>
    <message>
        <source>Name the other benchmark, or another file.</source>
        <translation>请指定另一个基准测试，或另一个文件。</translation>
    </message>
    <message>
        <source>{file} has no name of a benchmark; by its columns it is read as {title}.</source>
        <translation>{file} 的文件名不属于任何基准测试；根据其列，按 {title} 读取。</translation>
    </message>
    <message>
        <source>{file} in {folder} belongs to no benchmark that is known here.</source>
        <translation>{folder} 中的 {file} 不属于任何已知的基准测试。</translation>
    </message>
    <message>
        <source>{folder} has no file {file}, which belongs to the others there.</source>
        <translation>{folder} 中缺少文件 {file}，它与其中的其他文件属于同一组。</translation>
    </message>
    <message>
        <source>The download may be incomplete.</source>
        <translation>下载可能不完整。</translation>
    </message>
    <message>
        <source>{file} has no answers.</source>
        <translation>{file} 没有答案。</translation>
    </message>
    <message>
        <source>Add a column &apos;answer&apos;.</source>
        <translation>请添加列 &apos;answer&apos;。</translation>
    </message>
    <message>
        <source>{folder} has no files of a known benchmark.</source>
        <translation>{folder} 中没有已知基准测试的文件。</translation>
    </message>
    <message>
        <source>Name the data file itself.</source>
        <translation>请直接指定数据文件。</translation>
    </message>
    <message>
        <source>The Arrow files in {cache} are not read: download the data set into {hub} with `hf download --repo-type dataset`, or name a file or folder with --data.</source>
        <translation>不读取 {cache} 中的 Arrow 文件：请用 `hf download --repo-type dataset` 把数据集下载到 {hub}，或用 --data 指定文件或文件夹。</translation>
    </message>
    <message>
        <source>{file} has {count} questions; the published set of {title} has {all}.</source>
        <translation>{file} 有 {count} 个问题；公开的 {title} 有 {all} 个。</translation>
    </message>
    <message>
        <source>{folder} has too many folders to search.</source>
        <translation>{folder} 中的文件夹太多，无法搜索。</translation>
    </message>
    <message>
        <source>Name the data file with --data.</source>
        <translation>请用 --data 指定数据文件。</translation>
    </message>
    <message>
        <source>{file} is not a TSV, JSON or parquet file.</source>
        <translation>{file} 不是 TSV、JSON 或 parquet 文件。</translation>
    </message>
    <message>
        <source>Use a file of the benchmark in one of these formats.</source>
        <translation>请使用这些格式之一的基准测试文件。</translation>
    </message>
    <message>
        <source>{file} is not one of the published editions (its md5 is {md5}).</source>
        <translation>{file} 不是已公开的版本之一（其 md5 为 {md5}）。</translation>
    </message>
    <message>
        <source>{file} has no readable picture: {why}.</source>
        <translation>{file} 中没有可读取的图片：{why}。</translation>
    </message>
    <message>
        <source>There is no run in {folder}.</source>
        <translation>{folder} 中没有运行记录。</translation>
    </message>
    <message>
        <source>Leave --score-only out to ask the questions, or name the folder with --output.</source>
        <translation>请去掉 --score-only 以提问，或用 --output 指定文件夹。</translation>
    </message>
    <message>
        <source>{file} has no list of questions.</source>
        <translation>{file} 中没有问题列表。</translation>
    </message>
    <message>
        <source>Use the file of the benchmark&apos;s authors.</source>
        <translation>请使用基准测试作者的文件。</translation>
    </message>
    <message>
        <source>{file} is not a JSON object.</source>
        <translation>{file} 不是 JSON 对象。</translation>
    </message>
    <message>
        <source>{file} is there without {absent}, which is the other half of the benchmark.</source>
        <translation>有 {file}，但缺少 {absent}，它是该基准测试的另一半。</translation>
    </message>
    <message>
        <source>Put both files into one folder.</source>
        <translation>请把两个文件放在同一个文件夹中。</translation>
    </message>
    <message>
        <source>{file} has no questions.</source>
        <translation>{file} 中没有问题。</translation>
    </message>
    <message>
        <source>{file} has {size}, more than the {most} that a JSON file of questions may have.</source>
        <translation>{file} 的大小为 {size}，超过了问题 JSON 文件的上限 {most}。</translation>
    </message>
    <message>
        <source>{file} is not valid JSON: {why}.</source>
        <translation>{file} 不是有效的 JSON：{why}。</translation>
    </message>
    <message>
        <source>The download may be incomplete; get it again.</source>
        <translation>下载可能不完整；请重新获取。</translation>
    </message>
    <message>
        <source>{where} has no text {key!r}.</source>
        <translation>{where} 没有文本 {key!r}。</translation>
    </message>
    <message>
        <source>byte {place}</source>
        <translation>第 {place} 字节</translation>
    </message>
    <message>
        <source>less than 1 point lost</source>
        <translation>损失不到 1 分</translation>
    </message>
    <message>
        <source>a loss is shown</source>
        <translation>已证实有损失</translation>
    </message>
    <message>
        <source>not graded</source>
        <translation>未评分</translation>
    </message>
    <message>
        <source>not decided with {questions} questions</source>
        <translation>{questions} 个问题不足以判定</translation>
    </message>
    <message>
        <source>The two runs can&apos;t be compared: the question {id!r} was asked with different words or another picture.</source>
        <translation>无法比较这两次运行：问题 {id!r} 的提问文字或图片不同。</translation>
    </message>
    <message>
        <source>The two runs have no question of {data} in common that both answered.</source>
        <translation>这两次运行没有都回答过的 {data} 问题。</translation>
    </message>
    <message>
        <source>{file} has no rows.</source>
        <translation>{file} 中没有数据行。</translation>
    </message>
    <message>
        <source>{where} has options that are not a list.</source>
        <translation>{where} 的选项不是列表。</translation>
    </message>
    <message>
        <source>the file was changed</source>
        <translation>文件已被更改</translation>
    </message>
    <message>
        <source>Reading parquet files needs the package pyarrow, which is not installed.</source>
        <translation>读取 parquet 文件需要 pyarrow 包，但它尚未安装。</translation>
    </message>
    <message>
        <source>Run: pip install &quot;cogvlm2-lite[evaluate]&quot;</source>
        <translation>请运行：pip install &quot;cogvlm2-lite[evaluate]&quot;</translation>
    </message>
    <message>
        <source>Unknown protocol {name!r}.</source>
        <translation>未知的协议 {name!r}。</translation>
    </message>
    <message>
        <source>{where} has the index {id!r}, but MMBench numbers its rows.</source>
        <translation>{where} 的索引为 {id!r}，但 MMBench 的行使用数字编号。</translation>
    </message>
    <message>
        <source>{count} of {all} questions have no answer; the first has the id {id}.</source>
        <translation>{all} 个问题中有 {count} 个没有答案，第一个的编号为 {id}。</translation>
    </message>
    <message>
        <source>Use a complete copy of the file.</source>
        <translation>请使用完整的文件副本。</translation>
    </message>
    <message>
        <source>{where} has no question.</source>
        <translation>{where} 没有问题。</translation>
    </message>
    <message>
        <source>{where} has the id {id!r}, which another row has, so their answers could not be told apart.</source>
        <translation>{where} 的编号 {id!r} 与另一行相同，因此无法区分它们的回答。</translation>
    </message>
    <message>
        <source>Options and hints such as &apos;None&apos; or &apos;N/A&apos; are left out of the prompt, because VLMEvalKit reads them as missing (questions concerned: {count}).</source>
        <translation>&apos;None&apos;、&apos;N/A&apos; 之类的选项和提示不写入提示词，因为 VLMEvalKit 把它们读作缺失值（涉及 {count} 个问题）。</translation>
    </message>
    <message>
        <source>Of several pictures, only the first is shown: the model takes one (questions concerned: {count}).</source>
        <translation>有多张图片时只显示第一张：模型只接受一张图片（涉及 {count} 个问题）。</translation>
    </message>
    <message>
        <source>Questions whose answer is none of their options count as wrong: {count}.</source>
        <translation>答案不在选项中的问题按错误计算：{count} 个。</translation>
    </message>
    <message>
        <source>Choose another folder with --output, or add --restart to ask everything again.</source>
        <translation>请用 --output 选择其他文件夹，或加上 --restart 以重新提问全部问题。</translation>
    </message>
    <message>
        <source>The answers in {folder} were made with {name} {value}, and now it is {found}.</source>
        <translation>{folder} 中的回答所用的{name}是 {value}，而现在是 {found}。</translation>
    </message>
    <message>
        <source>Add --restart to ask everything again, or choose another folder with --output.</source>
        <translation>请加上 --restart 以重新提问全部问题，或用 --output 选择其他文件夹。</translation>
    </message>
    <message>
        <source>The answers in {folder} were computed with {value}, and now it is {found}.</source>
        <translation>{folder} 中的回答是用 {value} 计算的，而现在是 {found}。</translation>
    </message>
    <message>
        <source>Use --device and --dtype as before, add --restart to ask everything again, or choose another folder with --output.</source>
        <translation>请使用与之前相同的 --device 和 --dtype，或加上 --restart 以重新提问全部问题，或用 --output 选择其他文件夹。</translation>
    </message>
    <message>
        <source>{model} and {other} can&apos;t be compared: the first was asked with {name} {value}, the second with {found}.</source>
        <translation>无法比较 {model} 和 {other}：前者提问时的{name}是 {value}，后者是 {found}。</translation>
    </message>
    <message>
        <source>Ask both with the same data and options.</source>
        <translation>请用相同的数据和选项对两者提问。</translation>
    </message>
    <message>
        <source>the benchmark</source>
        <translation>基准测试</translation>
    </message>
    <message>
        <source>the model</source>
        <translation>模型</translation>
    </message>
    <message>
        <source>the data with the md5</source>
        <translation>数据（md5）</translation>
    </message>
    <message>
        <source>the protocol</source>
        <translation>协议</translation>
    </message>
    <message>
        <source>the template</source>
        <translation>模板</translation>
    </message>
    <message>
        <source>{folder} has answers, but no {file} that says what was asked.</source>
        <translation>{folder} 中有回答，但没有说明提问内容的 {file}。</translation>
    </message>
    <message>
        <source>evaluate did not write it</source>
        <translation>它不是由 evaluate 写入的</translation>
    </message>
    <message>
        <source>The answers of the reference need {size} in {folder}, which has {free} free.</source>
        <translation>参考模型的回答需要在 {folder} 中占用 {size}，那里有 {free} 可用。</translation>
    </message>
    <message>
        <source>Use fewer samples, or set the variable TMPDIR to another folder.</source>
        <translation>请减少样本，或把变量 TMPDIR 设为其他文件夹。</translation>
    </message>
    <message>
        <source>Sample {number} has no answer, so nothing can be measured.</source>
        <translation>样本 {number} 没有回答，无法测量。</translation>
    </message>
    <message>
        <source>There is no sample with an answer.</source>
        <translation>没有带回答的样本。</translation>
    </message>
    <message>
        <source>There is no folder for temporary files: {why}.</source>
        <translation>没有可用的临时文件夹：{why}。</translation>
    </message>
    <message>
        <source>Set the environment variable TMPDIR to a folder that can be written.</source>
        <translation>请将环境变量 TMPDIR 设为可写的文件夹。</translation>
    </message>
    <message>
        <source>The limit must be 1 or more questions, not {limit}.</source>
        <translation>问题数量上限必须至少为 1，而不是 {limit}。</translation>
    </message>
    <message>
        <source>{file} has a header but no rows.</source>
        <translation>{file} 只有表头，没有数据行。</translation>
    </message>
    <message>
        <source>{file}, row {number} has {width} cells, but the header has {columns}.</source>
        <translation>{file} 的第 {number} 行有 {width} 个单元格，而表头有 {columns} 个。</translation>
    </message>
    <message>
        <source>{file} ends in the middle of row {number}: the file is cut.</source>
        <translation>{file} 在第 {number} 行中间结束：文件被截断。</translation>
    </message>
    <message>
        <source>{file} has no pictures: all image cells are empty.</source>
        <translation>{file} 中没有图片：所有图片单元格都是空的。</translation>
    </message>
    <message>
        <source>The pictures of {file} were saved again as JPEG of quality 75, so they differ from those of the full file.</source>
        <translation>{file} 的图片已重新保存为质量 75 的 JPEG，因此与完整文件中的图片不同。</translation>
    </message>
    <message>
        <source>{where} names the row {id!r} for its picture, but no row with this index has one.</source>
        <translation>{where} 的图片引用了第 {id!r} 行，但没有该索引的行包含图片。</translation>
    </message>
    <message>
        <source>{where} has no picture.</source>
        <translation>{where} 没有图片。</translation>
    </message>
    <message>
        <source>{file} has a row of more than {most}; a quotation mark may be missing.</source>
        <translation>{file} 中有一行超过 {most}；可能缺少引号。</translation>
    </message>
    <message>
        <source>Use a TSV file as VLMEvalKit has them, with tabs between the columns.</source>
        <translation>请使用 VLMEvalKit 格式的 TSV 文件，各列以制表符分隔。</translation>
    </message>
    <message>
        <source>{file} has no pictures: neither a column &apos;image&apos; nor &apos;image_path&apos;.</source>
        <translation>{file} 中没有图片：既没有列 &apos;image&apos;，也没有列 &apos;image_path&apos;。</translation>
    </message>
    <message>
        <source>Use a TSV file as VLMEvalKit has them.</source>
        <translation>请使用 VLMEvalKit 格式的 TSV 文件。</translation>
    </message>
    <message>
        <source>Rows of {file} without a picture are left out, as in VLMEvalKit: {count}.</source>
        <translation>与 VLMEvalKit 一样，省略 {file} 中没有图片的行：{count} 行。</translation>
    </message>
    <message>
        <source>it is not valid base64</source>
        <translation>不是有效的 base64</translation>
    </message>
    <message>
        <source>row {number}</source>
        <translation>第 {number} 行</translation>
    </message>
    <message>
        <source>header</source>
        <translation>表头</translation>
    </message>
    <message>
        <source>Another {command} is writing its answers to {folder}.</source>
        <translation>另一个 {command} 正在向 {folder} 写入回答。</translation>
    </message>
    <message>
        <source>The file system of {folder} has no locks. Start no second {command} there before this one has ended.</source>
        <translation>{folder} 所在的文件系统不支持文件锁。请在本次 {command} 结束之前，不要在该文件夹中启动另一个。</translation>
    </message>
    <message>
        <source>{count} of {total} rows can&apos;t be used: {reasons}.</source>
        <translation>{total} 行中有 {count} 行无法使用：{reasons}。</translation>
    </message>
    <message>
        <source>Correct them, or use --allow-skipped to train without them.</source>
        <translation>请修正它们，或用 --allow-skipped 在没有它们的情况下训练。</translation>
    </message>
    <message>
        <source>All {count} answers are held out, so there is nothing to learn from.</source>
        <translation>全部 {count} 个回答都被留出，因此没有可学习的内容。</translation>
    </message>
    <message>
        <source>--held-out must be a share such as 10%, a number of answers or 0, not {value}.</source>
        <translation>--held-out 必须是份额（例如 10%）、回答的数量或 0，而不是 {value}。</translation>
    </message>
    <message>
        <source>{param} must be above 0, not {value}.</source>
        <translation>{param} 必须大于 0，而不是 {value}。</translation>
    </message>
    <message>
        <source>The samples have no labels, so there is nothing to train.</source>
        <translation>这些样本没有标签，因此没有可训练的内容。</translation>
    </message>
    <message>
        <source>{name} of sample {number} must have the shape [1, tokens], not {shape}.</source>
        <translation>样本 {number} 的 {name} 的形状必须是 [1, tokens]，而不是 {shape}。</translation>
    </message>
    <message>
        <source>{name} must be between 0 and {most}.</source>
        <translation>{name} 必须在 0 和 {most} 之间。</translation>
    </message>
    <message>
        <source>{file} has no rows that can be used.</source>
        <translation>{file} 中没有可用的行。</translation>
    </message>
    <message>
        <source>Rows need an answer, and a picture that can be opened.</source>
        <translation>每行需要一个回答，以及一张可以打开的图片。</translation>
    </message>
    <message>
        <source>{folder} has no data of the form {form}.</source>
        <translation>{folder} 中没有 {form} 形式的数据。</translation>
    </message>
    <message>
        <source>Use a .jsonl, .json, .csv or .tsv file, or a folder of pictures with captions.</source>
        <translation>请使用 .jsonl、.json、.csv 或 .tsv 文件，或含有图片和说明文字的文件夹。</translation>
    </message>
    <message>
        <source>{file} is not in UTF-8.</source>
        <translation>{file} 不是 UTF-8 编码。</translation>
    </message>
    <message>
        <source>{file} has no column for pictures and answers.</source>
        <translation>{file} 中没有图片和回答的列。</translation>
    </message>
    <message>
        <source>Its first line must name them, for example image,question,answer.</source>
        <translation>第一行必须写出列名，例如 image,question,answer。</translation>
    </message>
    <message>
        <source>{folder} has no pictures with captions.</source>
        <translation>{folder} 中没有带说明文字的图片。</translation>
    </message>
    <message>
        <source>A caption is a text file with the picture&apos;s name: photo.jpg and photo.txt.</source>
        <translation>说明文字是与图片同名的文本文件：photo.jpg 和 photo.txt。</translation>
    </message>
    <message>
        <source>{file} is not a list of rows in JSON.</source>
        <translation>{file} 不是 JSON 的行列表。</translation>
    </message>
    <message>
        <source>{file}, line {line}: {why}.</source>
        <translation>{file} 第 {line} 行：{why}。</translation>
    </message>
    <message>
        <source>{folder} has labels in several languages.</source>
        <translation>{folder} 含有多种语言的标签。</translation>
    </message>
    <message>
        <source>Choose with --labels en, zh or both.</source>
        <translation>请用 --labels en、zh 或 both 选择。</translation>
    </message>
    <message>
        <source>Start again with --restart.</source>
        <translation>请用 --restart 重新开始。</translation>
    </message>
    <message>
        <source>{folder} has a run with {key} = {old}, not {new}.</source>
        <translation>{folder} 中的训练使用 {key} = {old}，而不是 {new}。</translation>
    </message>
    <message>
        <source>Use the same settings to continue, another folder, or --restart to start again.</source>
        <translation>请使用相同的设置继续，或使用另一个文件夹，或用 --restart 重新开始。</translation>
    </message>
    <message>
        <source>Get the safetensors version of the model, with its config.json.</source>
        <translation>请获取模型的 safetensors 版本及其 config.json。</translation>
    </message>
    <message>
        <source>Unpack it, and use the folder that contains config.json.</source>
        <translation>请将其解压，并使用包含 config.json 的文件夹。</translation>
    </message>
    <message>
        <source>Download the file itself, not the page about it. If the site asks, sign in and accept the licence first.</source>
        <translation>请下载文件本身，而不是介绍它的网页。如果网站要求，请先登录并接受许可协议。</translation>
    </message>
    <message>
        <source>The file is not complete, or it was changed. Copy or download it again.</source>
        <translation>文件不完整或已被改动。请重新复制或下载。</translation>
    </message>
    <message>
        <source>{file} contains a message of the server instead of the file: {message}</source>
        <translation>{file} 中是服务器返回的消息，而不是文件内容：{message}</translation>
    </message>
    <message>
        <source>{file} is a Git LFS pointer of {count} bytes: the file itself ({size}) was not downloaded.</source>
        <translation>{file} 只是 {count} 字节的 Git LFS 指针：文件本身（{size}）没有下载。</translation>
    </message>
    <message>
        <source>Run `git lfs pull` in its folder, or download the file itself.</source>
        <translation>请在该文件夹中运行 `git lfs pull`，或下载文件本身。</translation>
    </message>
    <message>
        <source>--adapter needs the folder of a model: {model} has random weights.</source>
        <translation>--adapter 需要一个模型文件夹：{model} 的权重是随机的。</translation>
    </message>
    <message>
        <source>Name the model&apos;s folder before the options.</source>
        <translation>请在选项之前给出模型的文件夹。</translation>
    </message>
    <message>
        <source>There is nothing to compare {folder} with.</source>
        <translation>没有可与 {folder} 比较的对象。</translation>
    </message>
    <message>
        <source>--html shows how the matrices of two folders differ, so it can&apos;t be combined with --adapter.</source>
        <translation>--html 显示两个文件夹的矩阵有何不同，因此不能与 --adapter 一起使用。</translation>
    </message>
    <message>
        <source>`cogvlm2-lite merge` writes a folder that has the adapter in its matrices.</source>
        <translation>`cogvlm2-lite merge` 会写出一个矩阵中已含适配器的文件夹。</translation>
    </message>
    <message>
        <source>{folder} exists already.</source>
        <translation>{folder} 已存在。</translation>
    </message>
    <message>
        <source>Choose a new folder for the pictures.</source>
        <translation>请为图片选择一个新文件夹。</translation>
    </message>
    <message>
        <source>{option} is for rows of pictures with answers, and {data} is a benchmark.</source>
        <translation>{option} 用于带答案的图片数据，而 {data} 是基准测试。</translation>
    </message>
    <message>
        <source>{data} has rows of pictures with answers, and {other} is a benchmark.</source>
        <translation>{data} 是带答案的图片数据，而 {other} 是基准测试。</translation>
    </message>
    <message>
        <source>Evaluate them one after the other.</source>
        <translation>请分别评估。</translation>
    </message>
    <message>
        <source>{option} is for benchmarks, and {data} has rows of pictures with answers.</source>
        <translation>{option} 用于基准测试，而 {data} 是带答案的图片数据。</translation>
    </message>
    <message>
        <source>{param} needs a folder, not {value!r}.</source>
        <translation>{param} 需要一个文件夹，而不是 {value!r}。</translation>
    </message>
    <message>
        <source>Write it like my-cache, my-cache:50GiB, or :0 for none.</source>
        <translation>请写成 my-cache、my-cache:50GiB，或用 :0 表示不存储。</translation>
    </message>
    <message>
        <source>Memory ran out. {size} more of the weights now come from RAM or disk for each use; the step starts again.</source>
        <translation>内存用尽。现在每次使用时另有 {size} 权重来自内存或磁盘；这一步会重新开始。</translation>
    </message>
    <message>
        <source>The answers of {name!r} would be in the same folder as those of another adapter.</source>
        <translation>{name!r} 的回答会与另一个适配器的回答放在同一个文件夹中。</translation>
    </message>
    <message>
        <source>Name them: --adapter one=FOLDER --adapter two=FOLDER.</source>
        <translation>请为它们命名：--adapter one=文件夹 --adapter two=文件夹。</translation>
    </message>
    <message>
        <source>{file} has no rows that can be used: {reasons}.</source>
        <translation>{file} 中没有可用的行：{reasons}。</translation>
    </message>
    <message>
        <source>Rows need an answer, and a picture that can be found.</source>
        <translation>每一行都需要有回答，以及可以找到的图片。</translation>
    </message>
    <message>
        <source>a gain is shown</source>
        <translation>有改进</translation>
    </message>
    <message>
        <source>lower</source>
        <translation>更低</translation>
    </message>
    <message>
        <source>higher</source>
        <translation>更高</translation>
    </message>
    <message>
        <source>Choose a smaller --held-out, or 0 to hold out none.</source>
        <translation>请减小 --held-out，或设为 0 表示不留出。</translation>
    </message>
    <message>
        <source>The loss or gradient was not a number in {count} steps, also in float32; the last was step {step} with the rows {rows}.</source>
        <translation>有 {count} 步的损失或梯度不是数值，用 float32 重算也一样；最后是第 {step} 步，数据行为 {rows}。</translation>
    </message>
    <message>
        <source>Use a lower --lr than {rate} with --restart, or look at these rows. The adapter and the state of step {saved} are kept.</source>
        <translation>请用低于 {rate} 的 --lr 并加 --restart，或检查这些数据行。适配器和第 {saved} 步的状态已保留。</translation>
    </message>
    <message>
        <source>After step {step}, numbers of {name} are not finite.</source>
        <translation>第 {step} 步之后，{name} 中有非有限的数值。</translation>
    </message>
    <message>
        <source>Use a lower --lr than {rate} with --restart. The state of step {saved} is kept.</source>
        <translation>请用低于 {rate} 的 --lr 并加 --restart。第 {saved} 步的状态已保留。</translation>
    </message>
    <message>
        <source>{folder} can&apos;t be written to: {why}. The training continues, and saving is tried again after the next step.</source>
        <translation>无法写入 {folder}：{why}。训练继续进行，下一步之后会再次尝试保存。</translation>
    </message>
    <message>
        <source>The adapter could not be saved in {folder}: {why}.</source>
        <translation>无法将适配器保存到 {folder}：{why}。</translation>
    </message>
    <message>
        <source>Free some space, then run the same command again: it continues from the last saved state, of step {step}.</source>
        <translation>请腾出一些空间，然后再次运行同一命令：它会从最后保存的状态（第 {step} 步）继续。</translation>
    </message>
    <message>
        <source>The GPU stopped working after step {step}: {why}.</source>
        <translation>GPU 在第 {step} 步之后停止工作：{why}。</translation>
    </message>
    <message>
        <source>Run the same command again: it continues from the last saved state, of step {saved}. `cogvlm2-lite doctor` shows which GPUs still respond.</source>
        <translation>请再次运行同一命令：它会从最后保存的状态（第 {saved} 步）继续。`cogvlm2-lite doctor` 会显示哪些 GPU 仍有响应。</translation>
    </message>
    <message>
        <source>The held-out questions could not be answered: {why} The training continues.</source>
        <translation>无法回答留出的问题：{why} 训练继续进行。</translation>
    </message>
    <message>
        <source>The held-out loss is {after} with the adapter and {before} without it, so it does not help. Look at the data, or use another --lr.</source>
        <translation>留出数据的损失在使用适配器时为 {after}，不使用时为 {before}，因此它没有帮助。请检查数据，或使用其他 --lr。</translation>
    </message>
    <message>
        <source>The adapter acts behind the picture, with a held-out loss of {own}. In peft, where it acts on all tokens, the loss is {loss}.</source>
        <translation>适配器只作用于图片之后，留出数据的损失为 {own}。在 peft 中它作用于所有词元，损失为 {loss}。</translation>
    </message>
    <message>
        <source>Step {step} changed nothing: its loss or gradient is not a number, also in float32. Its rows: {rows}.</source>
        <translation>第 {step} 步没有改变任何数值：它的损失或梯度不是数值，用 float32 重算也一样。其数据行：{rows}。</translation>
    </message>
    <message>
        <source>{device} has no bfloat16, and small gradients are lost in float16.</source>
        <translation>{device} 不支持 bfloat16，而在 float16 中微小的梯度会丢失。</translation>
    </message>
    <message>
        <source>{name} is set, so torch computes on the CPU what this GPU can&apos;t.</source>
        <translation>设置了 {name}，因此该 GPU 无法计算的部分由 torch 在 CPU 上计算。</translation>
    </message>
    <message>
        <source>Name MODEL_B, or add --adapter FOLDER or --activations int8.</source>
        <translation>请指定 MODEL_B，或加上 --adapter FOLDER 或 --activations int8。</translation>
    </message>
    <message>
        <source>Use --dtype float32.</source>
        <translation>请使用 --dtype float32。</translation>
    </message>
    <message>
        <source>--activations int8 has no effect: the model is not quantized.</source>
        <translation>--activations int8 不起作用：该模型没有量化。</translation>
    </message>
    <message>
        <source>Activations of 8 bits need a CPU and this program&apos;s C kernels.</source>
        <translation>8 位激活值需要 CPU 和本程序的 C 内核。</translation>
    </message>
    <message>
        <source>Leave out --activations, or use --device cpu. `cogvlm2-lite doctor` shows the kernels.</source>
        <translation>请去掉 --activations，或使用 --device cpu。`cogvlm2-lite doctor` 会显示内核。</translation>
    </message>
    <message>
        <source>The picture was computed with activations of 8 bits.</source>
        <translation>计算这张图片时使用了 8 位激活值。</translation>
    </message>
    <message>
        <source>The numbers of this model are too large for float16, so it computes in float32 from now on. This is slower and needs more memory.</source>
        <translation>此模型的数值超出了 float16 的范围，因此从现在起用 float32 计算。这会更慢，并需要更多内存。</translation>
    </message>
    <message>
        <source>{param} must be at least 0 and below 1, not {value}.</source>
        <translation>{param} 必须大于等于 0 且小于 1，而不是 {value}。</translation>
    </message>
    <message>
        <source>{param} must be {most} or less, not {value}.</source>
        <translation>{param} 必须小于等于 {most}，而不是 {value}。</translation>
    </message>
    <message>
        <source>--held-out must be a share such as 10%, a number of answers, 0, or a file of rows, not {value}.</source>
        <translation>--held-out 必须是比例（如 10%）、回答数、0 或数据行文件，而不是 {value}。</translation>
    </message>
    <message>
        <source>All pictures are held out by {file}, so there is nothing to learn from.</source>
        <translation>{file} 留出了所有图片，因此没有可学习的内容。</translation>
    </message>
    <message>
        <source>Use other rows for --held-out.</source>
        <translation>请为 --held-out 使用其他数据行。</translation>
    </message>
    <message>
        <source>More epochs can be added to a run with --schedule constant. Otherwise use the same number, another folder, or --restart to start again.</source>
        <translation>使用 --schedule constant 的训练可以增加轮数。否则请使用相同的轮数、另一个文件夹，或用 --restart 重新开始。</translation>
    </message>
    <message>
        <source>{file} is damaged. The run continues from step {step}.</source>
        <translation>{file} 已损坏。训练从第 {step} 步继续。</translation>
    </message>
    <message>
        <source>The loss has been above {loss} for {steps} steps, and was about {before} before. A lower --lr may help.</source>
        <translation>损失已连续 {steps} 步高于 {loss}，之前约为 {before}。降低 --lr 可能有帮助。</translation>
    </message>
    <message>
        <source>The held-out loss was not lower at {count} evaluations, so the run stops. The adapter is that of step {step}.</source>
        <translation>留出数据的损失在 {count} 次评估中没有降低，因此训练停止。适配器为第 {step} 步的结果。</translation>
    </message>
    <message>
        <source>The answers are learnt by heart: their loss is {loss}, while the held-out loss rises. The adapter of step {step} is kept. Fewer --epochs or more data help.</source>
        <translation>模型在死记答案：其损失为 {loss}，而留出数据的损失在上升。已保留第 {step} 步的适配器。减少 --epochs 或增加数据会有帮助。</translation>
    </message>
    <message>
        <source>The held-out loss has risen at {count} evaluations. The adapter of step {step} is kept; --patience stops such a run.</source>
        <translation>留出数据的损失已在 {count} 次评估中上升。已保留第 {step} 步的适配器；--patience 可让这样的训练停止。</translation>
    </message>
    <message>
        <source>{file} begins with {count} zero bytes: its space was reserved, but its content was not downloaded.</source>
        <translation>{file} 以 {count} 个零字节开头：空间已预留，但内容没有下载。</translation>
    </message>
    <message>
        <source>Continue or repeat its download.</source>
        <translation>请继续或重新下载。</translation>
    </message>
    <message>
        <source>{file} is a GGUF file, the format of llama.cpp, which CogVLM2 Lite can&apos;t read.</source>
        <translation>{file} 是 llama.cpp 使用的 GGUF 文件，CogVLM2 Lite 无法读取。</translation>
    </message>
    <message>
        <source>{file} is a pickle file of PyTorch, which can run any program when it is opened.</source>
        <translation>{file} 是 PyTorch 的 pickle 文件，打开它可能会运行任意程序。</translation>
    </message>
    <message>
        <source>{file} is a packed archive.</source>
        <translation>{file} 是压缩包。</translation>
    </message>
    <message>
        <source>{file} is empty.</source>
        <translation>{file} 是空文件。</translation>
    </message>
    <message>
        <source>unknown size</source>
        <translation>大小未知</translation>
    </message>
    <message>
        <source>{file} is a web page or a message of the server (HTML or XML), not the file.</source>
        <translation>{file} 是网页或服务器消息（HTML 或 XML），不是文件本身。</translation>
    </message>
    <message>
        <source>The download of {file} has not finished: {mark} is next to it.</source>
        <translation>{file} 的下载尚未完成：旁边还有 {mark}。</translation>
    </message>
    <message>
        <source>Continue the download with the same program until {mark} disappears. The size of the file says nothing, because its space was reserved at the beginning.</source>
        <translation>请用同一程序继续下载，直到 {mark} 消失。文件大小不能说明问题，因为空间在开始时就已预留。</translation>
    </message>
    <message>
        <source>Continue the download with the same program until it has ended, then try again.</source>
        <translation>请用同一程序继续下载，直到完成后再试。</translation>
    </message>
    <message>
        <source>Use its folder, {folder}.</source>
        <translation>请使用它所在的文件夹 {folder}。</translation>
    </message>
    <message>
        <source>{folder} is a folder of the Hugging Face cache, not a model folder.</source>
        <translation>{folder} 是 Hugging Face 缓存中的文件夹，不是模型文件夹。</translation>
    </message>
    <message>
        <source>{folder} has {other}, but no {name}.</source>
        <translation>{folder} 中有 {other}，但没有 {name}。</translation>
    </message>
    <message>
        <source>If it is the same file, rename {other} to {name}.</source>
        <translation>如果是同一个文件，请将 {other} 改名为 {name}。</translation>
    </message>
    <message>
        <source>{folder} has no config.json; the model is in a folder below it.</source>
        <translation>{folder} 中没有 config.json；模型在它下面的文件夹中。</translation>
    </message>
    <message>
        <source>Use one of {folders}.</source>
        <translation>请使用其中之一：{folders}。</translation>
    </message>
    <message>
        <source>{folder} has no {what} yet, but downloads that have not finished: {count} ({names}).</source>
        <translation>{folder} 中还没有 {what}，但有 {count} 个尚未完成的下载（{names}）。</translation>
    </message>
    <message>
        <source>{missing} of {count} ({names})</source>
        <translation>{count} 个中的 {missing} 个（{names}）</translation>
    </message>
    <message>
        <source>{folder} lacks files: {which}.</source>
        <translation>{folder} 缺少文件：{which}。</translation>
    </message>
    <message>
        <source>Run the same download again: it fetches only what is missing.</source>
        <translation>请重新运行同一下载：它只会获取缺少的部分。</translation>
    </message>
    <message>
        <source>{folder} has weights, but no config.json, which says what model they belong to.</source>
        <translation>{folder} 中有权重，但没有说明它们属于哪个模型的 config.json。</translation>
    </message>
    <message>
        <source>Choose the folder that contains config.json and the .safetensors files, or copy config.json from where the weights came from.</source>
        <translation>请选择包含 config.json 和 .safetensors 文件的文件夹，或从权重的来源处复制 config.json。</translation>
    </message>
    <message>
        <source>{folder} is an unfinished conversion.</source>
        <translation>{folder} 是尚未完成的转换。</translation>
    </message>
    <message>
        <source>Run the same quantize command again: it continues where it stopped.</source>
        <translation>请重新运行同一 quantize 命令：它会从中断处继续。</translation>
    </message>
    <message>
        <source>{folder} is a LoRA adapter, not a whole model.</source>
        <translation>{folder} 是 LoRA 适配器，不是完整的模型。</translation>
    </message>
    <message>
        <source>Merge it into the model that it was trained on, and use the merged folder.</source>
        <translation>请将它合并到训练时所用的模型中，并使用合并后的文件夹。</translation>
    </message>
    <message>
        <source>{folder} is a pipeline of diffusers, which CogVLM2 Lite does not run.</source>
        <translation>{folder} 是 diffusers 的流水线，CogVLM2 Lite 不支持运行它。</translation>
    </message>
    <message>
        <source>{folder} is a checkpoint of SwissArmyTransformer (SAT).</source>
        <translation>{folder} 是 SwissArmyTransformer（SAT）的检查点。</translation>
    </message>
    <message>
        <source>Use {folder}.</source>
        <translation>请使用 {folder}。</translation>
    </message>
    <message>
        <source>{folder} has {count} of {total} weight files ({names}), and no {index} that lists their tensors.</source>
        <translation>{folder} 中只有 {total} 个权重文件中的 {count} 个（{names}），也没有列出其张量的 {index}。</translation>
    </message>
    <message>
        <source>{folder} has its weights as {format} ({names}), which CogVLM2 Lite can&apos;t read.</source>
        <translation>{folder} 中的权重是 {format} 格式（{names}），CogVLM2 Lite 无法读取。</translation>
    </message>
    <message>
        <source>{folder} has only packed archives ({names}).</source>
        <translation>{folder} 中只有压缩包（{names}）。</translation>
    </message>
    <message>
        <source>{folder} lacks files: {which}. Downloads that have not finished are in it: {names}.</source>
        <translation>{folder} 缺少文件：{which}。其中有尚未完成的下载：{names}。</translation>
    </message>
    <message>
        <source>{folder} lacks files: {which}. {link} is a link to {target}, which does not exist.</source>
        <translation>{folder} 缺少文件：{which}。{link} 是指向 {target} 的链接，而后者不存在。</translation>
    </message>
    <message>
        <source>Its snapshots have no complete model. Run the download again until it ends.</source>
        <translation>其 snapshots 中没有完整的模型。请重新运行下载，直到完成。</translation>
    </message>
    <message>
        <source>--vram and --card describe a GPU, but --device cpu uses none.</source>
        <translation>--vram 和 --card 描述的是 GPU，而 --device cpu 不使用 GPU。</translation>
    </message>
    <message>
        <source>Leave --device out, or limit the CPU with --ram.</source>
        <translation>请去掉 --device，或用 --ram 限制 CPU。</translation>
    </message>
    <message>
        <source>--measure measures the processor, but this plan is for a GPU.</source>
        <translation>--measure 测量处理器，而这个计划是为 GPU 做的。</translation>
    </message>
    <message>
        <source>Add --device cpu, or leave --measure out.</source>
        <translation>请加上 --device cpu，或去掉 --measure。</translation>
    </message>
    <message>
        <source>a GPU with {sizes}</source>
        <translation>具有 {sizes} 的 GPU</translation>
    </message>
    <message>
        <source>{count} GPUs with {sizes}</source>
        <translation>{count} 个 GPU，显存 {sizes}</translation>
    </message>
    <message>
        <source>This computer has only {size} of RAM free now.</source>
        <translation>这台电脑现在只有 {size} 空闲内存。</translation>
    </message>
    <message>
        <source>the CPU</source>
        <translation>CPU</translation>
    </message>
    <message>
        <source>measured on this processor, {count} cores, disk stated</source>
        <translation>在此处理器上测得，{count} 个核心，磁盘为标称值</translation>
    </message>
    <message>
        <source>The known cards are {names}. For others state their memory: --vram 8GiB.</source>
        <translation>已知的显卡有 {names}。其他显卡请给出显存：--vram 8GiB。</translation>
    </message>
    <message>
        <source>The rates of the card {name!r} are not known.</source>
        <translation>不知道显卡 {name!r} 的速率。</translation>
    </message>
    <message>
        <source>Did you mean {name}?</source>
        <translation>您是指 {name} 吗？</translation>
    </message>
    <message>
        <source>stated: a card like {card}</source>
        <translation>标称值：与 {card} 类似的显卡</translation>
    </message>
    <message>
        <source>stated: {card}</source>
        <translation>标称值：{card}</translation>
    </message>
    <message>
        <source>stated: one core, {kind}</source>
        <translation>标称值：一个核心，{kind}</translation>
    </message>
    <message>
        <source>stated: {count} cores, {kind}</source>
        <translation>标称值：{count} 个核心，{kind}</translation>
    </message>
    <message>
        <source>per picture</source>
        <translation>每张图片</translation>
    </message>
    <message>
        <source>per question</source>
        <translation>每个问题</translation>
    </message>
    <message>
        <source>per token</source>
        <translation>每个 token</translation>
    </message>
    <message>
        <source>the vision tower</source>
        <translation>视觉塔</translation>
    </message>
    <message>
        <source>the projector</source>
        <translation>投影层</translation>
    </message>
    <message>
        <source>the vision experts</source>
        <translation>视觉专家</translation>
    </message>
    <message>
        <source>the language experts</source>
        <translation>语言专家</translation>
    </message>
    <message>
        <source>lm_head</source>
        <translation>lm_head</translation>
    </message>
    <message>
        <source>context {context} tokens</source>
        <translation>上下文 {context} 个 token</translation>
    </message>
    <message>
        <source>{device}: {peak} at the peak, {budget} may be used; {context}</source>
        <translation>{device}：峰值 {peak}，可用 {budget}；{context}</translation>
    </message>
    <message>
        <source>about {rate} tokens/s</source>
        <translation>约每秒 {rate} 个 token</translation>
    </message>
    <message>
        <source>Everything stays {place}, {speed}.</source>
        <translation>全部保留{place}，{speed}。</translation>
    </message>
    <message>
        <source>{ram_size} are copied from RAM ({ram_parts}) and {disk_size} from disk ({disk_parts})</source>
        <translation>{ram_size} 来自内存（{ram_parts}），{disk_size} 来自磁盘（{disk_parts}）</translation>
    </message>
    <message>
        <source>{ram_size} are copied from RAM ({ram_parts})</source>
        <translation>{ram_size} 来自内存（{ram_parts}）</translation>
    </message>
    <message>
        <source>{disk_size} are read from disk ({disk_parts})</source>
        <translation>{disk_size} 来自磁盘（{disk_parts}）</translation>
    </message>
    <message>
        <source>{count} conversations of {context} tokens</source>
        <translation>{count} 个对话，每个 {context} 个 token</translation>
    </message>
    <message>
        <source>The answer to a question about a new picture starts after about {wait}.</source>
        <translation>关于新图片的问题，约 {wait} 后开始回答。</translation>
    </message>
    <message>
        <source>An answer starts after about {wait}.</source>
        <translation>约 {wait} 后开始回答。</translation>
    </message>
    <message>
        <source>{speed} for each of {count} conversations</source>
        <translation>{count} 个对话各{speed}</translation>
    </message>
    <message>
        <source>For each token {transfer}, so {speed}.</source>
        <translation>每个 token 有 {transfer}，因此{speed}。</translation>
    </message>
    <message>
        <source>Decoding runs entirely {place}, {speed}.</source>
        <translation>生成回答完全{place}进行，{speed}。</translation>
    </message>
    <message>
        <source>in RAM</source>
        <translation>在内存中</translation>
    </message>
    <message>
        <source>on the GPU</source>
        <translation>在 GPU 上</translation>
    </message>
    <message>
        <source>on the {count} GPUs</source>
        <translation>在 {count} 个 GPU 上</translation>
    </message>
    <message>
        <source>from RAM: {part}</source>
        <translation>从内存：{part}</translation>
    </message>
    <message>
        <source>from disk: {part}</source>
        <translation>从磁盘：{part}</translation>
    </message>
    <message>
        <source>For each new picture {transfer}, while the computation runs.</source>
        <translation>每张新图片有 {transfer}，与计算同时进行。</translation>
    </message>
    <message>
        <source>For each new picture {transfer}, which takes about {wait} more.</source>
        <translation>每张新图片有 {transfer}，多用约 {wait}。</translation>
    </message>
    <message>
        <source>in memory</source>
        <translation>内存中</translation>
    </message>
    <message>
        <source>streamed: {part}</source>
        <translation>流式：{part}</translation>
    </message>
    <message>
        <source>expected</source>
        <translation>预计</translation>
    </message>
    <message>
        <source>{count} of {total} vision tower blocks</source>
        <translation>视觉塔 {total} 层中的 {count} 层</translation>
    </message>
    <message>
        <source>{count} of {total} vision experts</source>
        <translation>{total} 个视觉专家中的 {count} 个</translation>
    </message>
    <message>
        <source>{count} of {total} language experts</source>
        <translation>{total} 个语言专家中的 {count} 个</translation>
    </message>
    <message>
        <source>{model} on {machine}.</source>
        <translation>{model}，运行于 {machine}。</translation>
    </message>
    <message>
        <source>Embedding rows are read from a memory-mapped file: up to {size} more of cached pages.</source>
        <translation>词嵌入从映射文件中读取：另有最多 {size} 的缓存页。</translation>
    </message>
    <message>
        <source>{size} of weights are kept in RAM, where {host} may be used; the others stay on disk.</source>
        <translation>{size} 权重在内存中等待，那里可用 {host}；其余在磁盘上。</translation>
    </message>
    <message>
        <source>{size} of weights, including the embedding, are in RAM, where {host} may be used.</source>
        <translation>{size} 权重在内存中等待（词嵌入也在那里读取），那里可用 {host}。</translation>
    </message>
    <message>
        <source>No RAM is left for earlier pictures ({each} each): a question about one encodes it again.</source>
        <translation>没有剩余内存来保留以前的图片（每张 {each}）：再次询问时会重新读取。</translation>
    </message>
    <message>
        <source>{compute} TFLOP/s, memory {memory}, disk {disk} GB/s</source>
        <translation>{compute} TFLOP/s，内存 {memory}，磁盘 {disk} GB/s</translation>
    </message>
    <message>
        <source>{compute} TFLOP/s, memory {memory}, bus {bus}, disk {disk} GB/s</source>
        <translation>{compute} TFLOP/s，内存 {memory}，总线 {bus}，磁盘 {disk} GB/s</translation>
    </message>
    <message>
        <source>--lm-head works only with `{model}`; the lm_head of a folder is already stored.</source>
        <translation>--lm-head 只能与 `{model}` 一起使用；文件夹的 lm_head 已经存好。</translation>
    </message>
    <message>
        <source>Leave it out.</source>
        <translation>请去掉它。</translation>
    </message>
    <message>
        <source>The first answer also reads the weights from disk and packs them, about {wait}.</source>
        <translation>第一个回答还要从磁盘读取并打包权重，约 {wait}。</translation>
    </message>
    <message>
        <source>The first answer also reads the weights from disk, about {wait}.</source>
        <translation>第一个回答还要从磁盘读取权重，约 {wait}。</translation>
    </message>
    <message>
        <source>Expected times are calculated {source}. A question is assumed to have {count} tokens.</source>
        <translation>预计时间由计算得出，{source}。一个问题按 {count} 个 token 计。</translation>
    </message>
    <message>
        <source>Answers are the same with every plan. --kv and --activations can change them.</source>
        <translation>任何计划下回答都相同。--kv 和 --activations 可能会改变回答。</translation>
    </message>
    <message>
        <source>Encoded pictures are kept in up to {size} of RAM, {each} each.</source>
        <translation>询问过的图片会保留在最多 {size} 的内存中，每张 {each}。</translation>
    </message>
    <message>
        <source>4-bit matrices that are used for every token are in RAM twice, as stored and packed for this processor: {size} more.</source>
        <translation>每个 token 都要用的 4 位矩阵在内存中有两份：存储时的形式，以及为此处理器打包的形式：另需 {size}。</translation>
    </message>
    <message>
        <source>from rates ({source}; {numbers})</source>
        <translation>依据速率（{source}；{numbers}）</translation>
    </message>
    <message>
        <source>Unknown arguments of from_pretrained: {names}.</source>
        <translation>from_pretrained 的未知参数：{names}。</translation>
    </message>
    <message>
        <source>Its own options are {options}, device and dtype.</source>
        <translation>它自己的选项有 {options}、device 和 dtype。</translation>
    </message>
    <message>
        <source>device and device_map name different devices: {names}.</source>
        <translation>device 和 device_map 指定了不同的设备：{names}。</translation>
    </message>
    <message>
        <source>max_memory must be like {example}.</source>
        <translation>max_memory 的形式必须类似 {example}。</translation>
    </message>
    <message>
        <source>Make a 4-bit folder once with `cogvlm2-lite quantize`, and load that folder.</source>
        <translation>请先用 `cogvlm2-lite quantize` 制作一次 4 位文件夹，再加载该文件夹。</translation>
    </message>
    <message>
        <source>CogVLM2 Lite can&apos;t load a model with {param}.</source>
        <translation>CogVLM2 Lite 无法用 {param} 加载模型。</translation>
    </message>
    <message>
        <source>A device_map that places single modules can&apos;t be used: {places}.</source>
        <translation>不能使用逐个指定模块位置的 device_map：{places}。</translation>
    </message>
    <message>
        <source>Use device_map=&quot;auto&quot; with vram= and ram=; the memory plan decides which weights are where.</source>
        <translation>请使用 device_map=&quot;auto&quot; 以及 vram= 和 ram=；由内存规划决定各权重放在哪里。</translation>
    </message>
    <message>
        <source>There is no folder {name!r}, and the Hugging Face cache does not have the model.</source>
        <translation>没有文件夹 {name!r}，Hugging Face 缓存中也没有该模型。</translation>
    </message>
    <message>
        <source>Download it with `hf download {name}`, or pass the path of its folder.</source>
        <translation>请用 `hf download {name}` 下载，或传入其文件夹的路径。</translation>
    </message>
    <message>
        <source>The model can&apos;t be saved from here: its weights are unchanged in {folder}.</source>
        <translation>无法从这里保存模型：其权重原样保存在 {folder} 中。</translation>
    </message>
    <message>
        <source>Copy that folder.</source>
        <translation>请复制该文件夹。</translation>
    </message>
    <message>
        <source>A CogVLM2 model without weights can&apos;t be made.</source>
        <translation>无法创建没有权重的 CogVLM2 模型。</translation>
    </message>
    <message>
        <source>Load one with from_pretrained(FOLDER).</source>
        <translation>请用 from_pretrained(FOLDER) 加载。</translation>
    </message>
    <message>
        <source>The model takes input_ids, and no inputs_embeds.</source>
        <translation>模型只接受 input_ids，不接受 inputs_embeds。</translation>
    </message>
    <message>
        <source>The model takes no {names}; it derives positions from input_ids.</source>
        <translation>模型不接受 {names}；它由 input_ids 推导位置。</translation>
    </message>
    <message>
        <source>The model does not return attentions or hidden states.</source>
        <translation>模型不返回注意力或隐藏状态。</translation>
    </message>
    <message>
        <source>The model takes only a cache that it returned, not {kind}.</source>
        <translation>模型只接受由它自己返回的缓存，不接受 {kind}。</translation>
    </message>
    <message>
        <source>The model runs on {device} and can&apos;t be moved to {other}.</source>
        <translation>模型运行在 {device} 上，不能移到 {other}。</translation>
    </message>
    <message>
        <source>Choose the device at loading: from_pretrained(FOLDER, device_map=&quot;{other}&quot;).</source>
        <translation>请在加载时选择设备：from_pretrained(FOLDER, device_map=&quot;{other}&quot;)。</translation>
    </message>
    <message>
        <source>The model computes in {kind} and can&apos;t be converted to {other}.</source>
        <translation>模型以 {kind} 计算，不能转换为 {other}。</translation>
    </message>
    <message>
        <source>Choose the number type at loading: from_pretrained(FOLDER, dtype={other}).</source>
        <translation>请在加载时选择数值类型：from_pretrained(FOLDER, dtype={other})。</translation>
    </message>
    <message>
        <source>The cache has {expected} rows, and input_ids has {count}.</source>
        <translation>缓存有 {expected} 行，而 input_ids 有 {count} 行。</translation>
    </message>
    <message>
        <source>An array of the shape {shape} is not a picture.</source>
        <translation>形状为 {shape} 的数组不是图片。</translation>
    </message>
    <message>
        <source>A picture has the shape [height, width, 3] or [3, height, width].</source>
        <translation>图片的形状是 [height, width, 3] 或 [3, height, width]。</translation>
    </message>
    <message>
        <source>The array is not a picture: {why}.</source>
        <translation>该数组不是图片：{why}。</translation>
    </message>
    <message>
        <source>The picture&apos;s base64 text is not valid: {why}.</source>
        <translation>图片的 base64 文本无效：{why}。</translation>
    </message>
    <message>
        <source>The picture {url} can&apos;t be downloaded: {why}.</source>
        <translation>无法下载图片 {url}：{why}。</translation>
    </message>
    <message>
        <source>Messages may have parts of the types text and image, not {kind!r}.</source>
        <translation>消息只能包含 text 和 image 类型的部分，不能是 {kind!r}。</translation>
    </message>
    <message>
        <source>The model reads pictures and text, no videos and no audio.</source>
        <translation>模型读取图片和文本，不读取视频和音频。</translation>
    </message>
    <message>
        <source>The text has a place for a picture, but no picture was passed.</source>
        <translation>文本中有图片的位置，但没有传入图片。</translation>
    </message>
    <message>
        <source>Pass a list with one picture, or a list of pictures, for each text.</source>
        <translation>请为每段文本传入一张图片或一个图片列表。</translation>
    </message>
    <message>
        <source>max_length is {most}, but bos and the picture have {count} tokens.</source>
        <translation>max_length 为 {most}，但 bos 和图片共有 {count} 个 token。</translation>
    </message>
    <message>
        <source>input_ids has places for {count} image tokens; {pictures} pictures have {expected}.</source>
        <translation>input_ids 有 {count} 个图像 token 的位置；{pictures} 张图片有 {expected} 个。</translation>
    </message>
    <message>
        <source>Make input_ids and pixel_values with the processor.</source>
        <translation>请用处理器生成 input_ids 和 pixel_values。</translation>
    </message>
    <message>
        <source>{bits} bits per pixel</source>
        <translation>每像素 {bits} 位</translation>
    </message>
    <message>
        <source>The color profile of the picture is damaged and was ignored.</source>
        <translation>图片的颜色配置文件已损坏,已被忽略。</translation>
    </message>
    <message>
        <source>The file is damaged: parts of the picture may be wrong.</source>
        <translation>文件已损坏:图片的某些部分可能不正确。</translation>
    </message>
    <message>
        <source>The first frame of the animation shows nothing; this is frame {page} of {pages}, which shows most.</source>
        <translation>动画的第一帧没有内容;这是共 {pages} 帧中内容最多的第 {page} 帧。</translation>
    </message>
    <message>
        <source>This is picture {page} of {pages} in the file; the others were not read.</source>
        <translation>这是文件中共 {pages} 张图片的第 {page} 张;其他图片没有读取。</translation>
    </message>
    <message>
        <source>The picture has {count} million pixels; it was read at half its width and height.</source>
        <translation>图片有 {count} 百万像素;已按一半的宽度和高度读取。</translation>
    </message>
    <message>
        <source>Apple&apos;s CgBI extension</source>
        <translation>苹果的 CgBI 扩展</translation>
    </message>
    <message>
        <source>What was read is text, not a picture.</source>
        <translation>读取到的是文本，不是图片。</translation>
    </message>
    <message>
        <source>camera raw</source>
        <translation>相机原始格式(RAW)</translation>
    </message>
    <message>
        <source>icon</source>
        <translation>图标</translation>
    </message>
    <message>
        <source>video</source>
        <translation>视频</translation>
    </message>
    <message>
        <source>{file} has only one page, so page {page} can&apos;t be read.</source>
        <translation>{file} 只有一页,无法读取第 {page} 页。</translation>
    </message>
    <message>
        <source>{file} has {pages} pages, so page {page} can&apos;t be read.</source>
        <translation>{file} 有 {pages} 页,无法读取第 {page} 页。</translation>
    </message>
    <message>
        <source>{file} has {width} x {height} pixels, more than the {most} million that a picture may have.</source>
        <translation>{file} 有 {width} x {height} 像素，超过图片上限 {most} 百万像素。</translation>
    </message>
    <message>
        <source>Save a smaller copy: the model sees 1344 by 1344 pixels.</source>
        <translation>请存一份较小的副本：模型只看 1344 x 1344 像素。</translation>
    </message>
    <message>
        <source>Check the path and the permissions of the file.</source>
        <translation>请检查路径和文件的权限。</translation>
    </message>
    <message>
        <source>Pages are counted from 1, not from {page}.</source>
        <translation>页码从 1 开始,而不是从 {page} 开始。</translation>
    </message>
    <message>
        <source>{kind} can&apos;t be opened as a picture.</source>
        <translation>无法把 {kind} 作为图片打开。</translation>
    </message>
    <message>
        <source>Give a path, the bytes of a picture file, or a PIL image.</source>
        <translation>请给出路径、图片文件的字节或 PIL 图像。</translation>
    </message>
    <message>
        <source>The picture is a web address, which this program does not open.</source>
        <translation>图片是网址，本程序不打开网址。</translation>
    </message>
    <message>
        <source>Save the picture to a file and use the path of that file.</source>
        <translation>请把图片存为文件，并使用该文件的路径。</translation>
    </message>
    <message>
        <source>Choose one file in it.</source>
        <translation>请选择其中的一个文件。</translation>
    </message>
    <message>
        <source>{file} is not a regular file.</source>
        <translation>{file} 不是普通文件。</translation>
    </message>
    <message>
        <source>Get the file again or save it again from the program that made it.</source>
        <translation>请重新获取该文件，或从制作它的程序再保存一次。</translation>
    </message>
    <message>
        <source>{file} has {size}, more than the {most} that a picture may have.</source>
        <translation>{file} 大小为 {size}，超过图片上限 {most}。</translation>
    </message>
    <message>
        <source>This is frame 1 of {pages} of an animation.</source>
        <translation>这是动画共 {pages} 帧中的第 1 帧。</translation>
    </message>
    <message>
        <source>{file} has {kind} grey values outside of 0 to {most}, so black and white are not defined.</source>
        <translation>{file} 的{kind}灰度值超出 0 到 {most}，无法确定黑与白。</translation>
    </message>
    <message>
        <source>Save it with 8 or 16 bits per color.</source>
        <translation>请以每色 8 位或 16 位保存。</translation>
    </message>
    <message>
        <source>{file} has more than the {most} million pixels that a picture may have.</source>
        <translation>{file} 的像素超过图片上限 {most} 百万像素。</translation>
    </message>
    <message>
        <source>a video</source>
        <translation>视频</translation>
    </message>
    <message>
        <source>a PDF document</source>
        <translation> PDF 文档</translation>
    </message>
    <message>
        <source>an SVG drawing</source>
        <translation> SVG 图形</translation>
    </message>
    <message>
        <source>a web page</source>
        <translation>网页</translation>
    </message>
    <message>
        <source>a Photoshop file</source>
        <translation> Photoshop 文件</translation>
    </message>
    <message>
        <source>a JPEG XL picture</source>
        <translation> JPEG XL 图片</translation>
    </message>
    <message>
        <source>a JPEG 2000 picture</source>
        <translation> JPEG 2000 图片</translation>
    </message>
    <message>
        <source>a ZIP archive or an office document</source>
        <translation> ZIP 压缩包或办公文档</translation>
    </message>
    <message>
        <source>an icon file</source>
        <translation>图标文件</translation>
    </message>
    <message>
        <source>a PostScript file</source>
        <translation> PostScript 文件</translation>
    </message>
    <message>
        <source>{file} is a text file, not a picture.</source>
        <translation>{file} 是文本文件，不是图片。</translation>
    </message>
    <message>
        <source>{file} is in no known picture format.</source>
        <translation>{file} 不是已知的图片格式。</translation>
    </message>
    <message>
        <source>Save it again as PNG or JPEG with another program.</source>
        <translation>请用其他程序重新存为 PNG 或 JPEG。</translation>
    </message>
    <message>
        <source>Save it as JPEG or PNG with another program, then open that file.</source>
        <translation>请用其他程序存为 JPEG 或 PNG，再打开那个文件。</translation>
    </message>
    <message>
        <source>The engine was stopped.</source>
        <translation>引擎已停止。</translation>
    </message>
    <message>
        <source>It can be started again.</source>
        <translation>可以重新启动它。</translation>
    </message>
    <message>
        <source>The engine&apos;s process ended by itself with exit code {code}.</source>
        <translation>引擎进程自行结束，退出码 {code}。</translation>
    </message>
    <message>
        <source>The engine&apos;s process was killed ({signal}). Most often the system does this when memory runs out.</source>
        <translation>引擎进程被终止（{signal}）。通常是系统在内存耗尽时这样做。</translation>
    </message>
    <message>
        <source>The engine&apos;s process crashed ({signal}).</source>
        <translation>引擎进程崩溃（{signal}）。</translation>
    </message>
    <message>
        <source>Please report it with the log and the output of `cogvlm2-lite doctor`.</source>
        <translation>请附上日志和 `cogvlm2-lite doctor` 的输出报告此问题。</translation>
    </message>
    <message>
        <source>Close other programs and try again.</source>
        <translation>请关闭其他程序后再试。</translation>
    </message>
    <message>
        <source>Close other programs, or plan with a shorter --context.</source>
        <translation>请关闭其他程序，或用较短的 --context。</translation>
    </message>
    <message>
        <source>Shorten the question.</source>
        <translation>请缩短问题。</translation>
    </message>
    <message>
        <source>Encode</source>
        <translation>看图</translation>
    </message>
    <message>
        <source>Prefill with picture</source>
        <translation>读入图片和问题</translation>
    </message>
    <message>
        <source>Prefill of text</source>
        <translation>读入文字</translation>
    </message>
    <message>
        <source>Decode</source>
        <translation>生成回答</translation>
    </message>
    <message>
        <source>{folder} has no config.json, so it is not a model folder.</source>
        <translation>{folder} 中没有 config.json，不是模型文件夹。</translation>
    </message>
    <message>
        <source>CogVLM2 Lite runs cogvlm2-llama3-chat-19B and cogvlm2-llama3-chinese-chat-19B.</source>
        <translation>CogVLM2 Lite 运行 cogvlm2-llama3-chat-19B 和 cogvlm2-llama3-chinese-chat-19B。</translation>
    </message>
    <message>
        <source>They may change the results. Check that this is a CogVLM2 image model.</source>
        <translation>它们可能改变结果。请确认这是 CogVLM2 图像模型。</translation>
    </message>
    <message>
        <source>{folder} is not a folder.</source>
        <translation>{folder} 不是文件夹。</translation>
    </message>
    <message>
        <source>Get the safetensors version of the model. CogVLM2 Lite never opens pickle files.</source>
        <translation>请获取模型的 safetensors 版本。CogVLM2 Lite 从不打开 pickle 文件。</translation>
    </message>
    <message>
        <source>Copy or download {index} from where the weights came from.</source>
        <translation>请从权重的来源复制或下载 {index}。</translation>
    </message>
    <message>
        <source>This is another model, or its config.json does not belong to these weights.</source>
        <translation>这是另一个模型，或者 config.json 与这些权重不匹配。</translation>
    </message>
    <message>
        <source>Download the folder again, or copy the missing files into it.</source>
        <translation>请重新下载该文件夹，或把缺少的文件复制进去。</translation>
    </message>
    <message>
        <source>This folder was written by another program or for another model.</source>
        <translation>这个文件夹由其他程序写成，或属于另一个模型。</translation>
    </message>
    <message>
        <source>The folder mixes files of two models. Download it again into an empty one.</source>
        <translation>该文件夹混有两个模型的文件。请重新下载到一个空文件夹。</translation>
    </message>
    <message>
        <source>Index and files are of different versions. Download the folder again.</source>
        <translation>索引与文件版本不同。请重新下载该文件夹。</translation>
    </message>
    <message>
        <source>{file} has only {size} bytes, too few for a header.</source>
        <translation>{file} 只有 {size} 字节，放不下文件头。</translation>
    </message>
    <message>
        <source>The file is damaged or was not downloaded completely. Copy or download it again.</source>
        <translation>文件已损坏或没有下载完整。请重新复制或下载。</translation>
    </message>
    <message>
        <source>{folder} has no {file}, so text can&apos;t be turned into tokens.</source>
        <translation>{folder} 中没有 {file}，无法把文字转换为 token。</translation>
    </message>
    <message>
        <source>Copy {file} from the original checkpoint into the folder.</source>
        <translation>请从原始模型中把 {file} 复制到该文件夹。</translation>
    </message>
    <message>
        <source>{names} and {count} more</source>
        <translation>{names} 以及另外 {count} 个</translation>
    </message>
    <message>
        <source>Stopped.</source>
        <translation>已停止。</translation>
    </message>
    <message>
        <source>There is no folder {folder}.</source>
        <translation>没有文件夹 {folder}。</translation>
    </message>
    <message>
        <source>{folder} is both the source and the destination.</source>
        <translation>{folder} 既是来源又是目标。</translation>
    </message>
    <message>
        <source>{folder} is already quantized ({kinds}).</source>
        <translation>{folder} 已经量化过（{kinds}）。</translation>
    </message>
    <message>
        <source>Rounding twice loses quality: start from the released 16-bit checkpoint.</source>
        <translation>重复舍入会损失质量：请从发布的 16 位模型开始。</translation>
    </message>
    <message>
        <source>{folder} was started {difference}.</source>
        <translation>{folder} 开始时的设置不同：{difference}。</translation>
    </message>
    <message>
        <source>{folder} can&apos;t be used: {why}.</source>
        <translation>无法使用 {folder}：{why}。</translation>
    </message>
    <message>
        <source>The checkpoint is damaged. Copy or download {file} again.</source>
        <translation>模型文件已损坏。请重新复制或下载 {file}。</translation>
    </message>
    <message>
        <source>{file} can&apos;t be read at {tensor}: {why}.</source>
        <translation>读取 {file} 中的 {tensor} 时出错：{why}。</translation>
    </message>
    <message>
        <source>The file was changed while it was read. Put the whole file back and run the same command again.</source>
        <translation>文件在读取时被更改。请放回完整的文件后再次开始。</translation>
    </message>
    <message>
        <source>Add --recursive to include subfolders.</source>
        <translation>加上 --recursive 可同时查看其中的子文件夹。</translation>
    </message>
    <message>
        <source>Use the folder that contains the pictures.</source>
        <translation>请选择图片所在的文件夹。</translation>
    </message>
</context>
<context>
    <name>ModelBar</name>
    <message>
        <source>Progress of loading</source>
        <translation>加载进度</translation>
    </message>
    <message>
        <source>Cancel</source>
        <translation>取消</translation>
    </message>
    <message>
        <source>Cancel loading the model</source>
        <translation>取消加载模型</translation>
    </message>
    <message>
        <source>No model</source>
        <translation>无模型</translation>
    </message>
    <message>
        <source>Model: {name}</source>
        <translation>模型：{name}</translation>
    </message>
    <message>
        <source>No adapter</source>
        <translation>无适配器</translation>
    </message>
    <message>
        <source>Adapter: {name}</source>
        <translation>适配器：{name}</translation>
    </message>
    <message>
        <source>Choose the folder of an adapter</source>
        <translation>选择适配器的文件夹</translation>
    </message>
    <message>
        <source>Open a model folder</source>
        <translation>打开模型文件夹</translation>
    </message>
    <message>
        <source>Unloaded while a batch, an evaluation or a training run uses the memory.</source>
        <translation>批量处理、评测或训练正在使用内存，模型已卸载。</translation>
    </message>
    <message>
        <source>The engine has stopped. The next question starts it again.</source>
        <translation>引擎已停止。下一个问题会重新启动它。</translation>
    </message>
    <message>
        <source>Unloaded. The next question loads it again.</source>
        <translation>已卸载。下一个问题会重新加载它。</translation>
    </message>
    <message>
        <source>Choose a model.</source>
        <translation>请选择模型。</translation>
    </message>
    <message>
        <source>Ready. It runs on the processor, without a GPU.</source>
        <translation>就绪。在处理器上运行，不使用 GPU。</translation>
    </message>
    <message>
        <source>Ready. It runs on the GPU ({device}).</source>
        <translation>就绪。在 GPU（{device}）上运行。</translation>
    </message>
    <message>
        <source>Ready.</source>
        <translation>就绪。</translation>
    </message>
    <message>
        <source>Open a model folder…</source>
        <translation>打开模型文件夹…</translation>
    </message>
    <message>
        <source>Open the demo model</source>
        <translation>打开演示模型</translation>
    </message>
    <message>
        <source>Load again</source>
        <translation>重新加载</translation>
    </message>
    <message>
        <source>Unload</source>
        <translation>卸载</translation>
    </message>
    <message>
        <source>Convert a downloaded checkpoint…</source>
        <translation>转换已下载的检查点…</translation>
    </message>
    <message>
        <source>Memory of the model…</source>
        <translation>模型的内存…</translation>
    </message>
    <message>
        <source>To change the model, stop the answer first.</source>
        <translation>要更换模型，请先停止回答。</translation>
    </message>
    <message>
        <source>Add an adapter…</source>
        <translation>添加适配器…</translation>
    </message>
    <message>
        <source>Teach a new adapter…</source>
        <translation>训练新的适配器…</translation>
    </message>
    <message>
        <source>Remove from this list</source>
        <translation>从此列表中移除</translation>
    </message>
</context>
<context>
    <name>Overlay</name>
    <message>
        <source>Choose a part of the screen</source>
        <translation>选择屏幕的一部分</translation>
    </message>
    <message>
        <source>Draw a rectangle. Enter captures the whole screen, Esc cancels.</source>
        <translation>画一个矩形。按 Enter 截取整个屏幕，按 Esc 放弃。</translation>
    </message>
</context>
<context>
    <name>OwnFilesQuestion</name>
    <message>
        <source>Keep them</source>
        <translation>保留</translation>
    </message>
    <message>
        <source>The answers are in answers.jsonl and in the table only</source>
        <translation>回答只在 answers.jsonl 和表格中</translation>
    </message>
    <message>
        <source>Add at their end</source>
        <translation>添加到末尾</translation>
    </message>
    <message>
        <source>Add at their start</source>
        <translation>添加到开头</translation>
    </message>
    <message>
        <source>Replace them</source>
        <translation>替换</translation>
    </message>
    <message>
        <source>Skip their pictures</source>
        <translation>跳过对应的图片</translation>
    </message>
    <message>
        <source>Nothing is asked about pictures that have such a file</source>
        <translation>不询问有此类文件的图片</translation>
    </message>
    <message>
        <source>Other folder…</source>
        <translation>其他文件夹……</translation>
    </message>
    <message>
        <source>Cancel</source>
        <translation>取消</translation>
    </message>
    <message>
        <source>1 text file in {folder} is yours: this program did not write it, or it was edited since. What should happen to it?</source>
        <translation>{folder} 中有 1 个您自己的文本文件：它不是本程序写入的，或之后被编辑过。应如何处理？</translation>
    </message>
    <message>
        <source>{count} text files in {folder} are yours: this program did not write them, or they were edited since. What should happen to them?</source>
        <translation>{folder} 中有 {count} 个您自己的文本文件：它们不是本程序写入的，或之后被编辑过。应如何处理？</translation>
    </message>
</context>
<context>
    <name>Pages</name>
    <message>
        <source>Chat</source>
        <translation>对话</translation>
    </message>
    <message>
        <source>Batch</source>
        <translation>批处理</translation>
    </message>
    <message>
        <source>Convert</source>
        <translation>转换</translation>
    </message>
    <message>
        <source>Memory</source>
        <translation>内存</translation>
    </message>
    <message>
        <source>Evaluate</source>
        <translation>评测</translation>
    </message>
    <message>
        <source>Teach</source>
        <translation>训练</translation>
    </message>
    <message>
        <source>Settings</source>
        <translation>设置</translation>
    </message>
    <message>
        <source>About</source>
        <translation>关于</translation>
    </message>
</context>
<context>
    <name>Parts</name>
    <message>
        <source>{part} ({file})</source>
        <translation>{part}（{file}）</translation>
    </message>
    <message>
        <source>The whole picture</source>
        <translation>整张图片</translation>
    </message>
    <message>
        <source>{count} overlapping parts of the picture</source>
        <translation>图片的 {count} 个重叠部分</translation>
    </message>
    <message>
        <source>Part of the picture: {width} × {height} pixels at ({x}, {y})</source>
        <translation>图片的一部分：{width} × {height} 像素，位于 ({x}, {y})</translation>
    </message>
    <message>
        <source>, page {page}</source>
        <translation>，第 {page} 页</translation>
    </message>
    <message>
        <source>, turned by {degrees}°</source>
        <translation>，旋转 {degrees}°</translation>
    </message>
</context>
<context>
    <name>PathRow</name>
    <message>
        <source>Choose…</source>
        <translation>选择…</translation>
    </message>
</context>
<context>
    <name>Phase</name>
    <message>
        <source>Preparing</source>
        <translation>正在准备</translation>
    </message>
    <message>
        <source>Loading</source>
        <translation>正在加载</translation>
    </message>
    <message>
        <source>Looking at the picture</source>
        <translation>正在看图片</translation>
    </message>
    <message>
        <source>Reading the question</source>
        <translation>正在读问题</translation>
    </message>
    <message>
        <source>Reading the answer so far</source>
        <translation>正在读已有的回答</translation>
    </message>
    <message>
        <source>Answering</source>
        <translation>正在回答</translation>
    </message>
    <message>
        <source>{seconds:.1f} s per token</source>
        <translation>每个 token {seconds:.1f} 秒</translation>
    </message>
    <message>
        <source>next token {percent} %</source>
        <translation>下一个 token 已完成 {percent}%</translation>
    </message>
    <message>
        <source>the next in {time}</source>
        <translation>下一个还要 {time}</translation>
    </message>
    <message>
        <source>{rate:.1f} tokens/s</source>
        <translation>{rate:.1f} token/秒</translation>
    </message>
    <message>
        <source>at most {time} left</source>
        <translation>最多还要 {time}</translation>
    </message>
    <message>
        <source>{percent} %</source>
        <translation>{percent}%</translation>
    </message>
    <message>
        <source>about {time} left</source>
        <translation>大约还要 {time}</translation>
    </message>
    <message>
        <source>{count} s</source>
        <translation>{count} 秒</translation>
    </message>
    <message>
        <source>{count} min</source>
        <translation>{count} 分钟</translation>
    </message>
    <message>
        <source>{hours} h {minutes} min</source>
        <translation>{hours} 小时 {minutes} 分钟</translation>
    </message>
</context>
<context>
    <name>PictureChip</name>
    <message>
        <source>Undo</source>
        <translation>撤销</translation>
    </message>
    <message>
        <source>Remove the picture</source>
        <translation>移除图片</translation>
    </message>
    <message>
        <source>Ask about it in</source>
        <translation>提问位置：</translation>
    </message>
    <message>
        <source>a new conversation</source>
        <translation>新对话</translation>
    </message>
    <message>
        <source>this conversation</source>
        <translation>当前对话</translation>
    </message>
    <message>
        <source>The earlier answers stay, although they are about the other picture.</source>
        <translation>之前的回答会保留，尽管它们针对的是另一张图片。</translation>
    </message>
    <message>
        <source>{name} was removed.</source>
        <translation>已移除 {name}。</translation>
    </message>
    <message>
        <source>Undo: use {name}</source>
        <translation>撤销：使用 {name}</translation>
    </message>
    <message>
        <source>Reading the picture…</source>
        <translation>正在读取图片…</translation>
    </message>
    <message>
        <source>It replaces {name}.</source>
        <translation>它替换了 {name}。</translation>
    </message>
    <message>
        <source>Picture for the next question: {name}</source>
        <translation>下一个问题的图片：{name}</translation>
    </message>
</context>
<context>
    <name>PicturePanel</name>
    <message>
        <source>Picture</source>
        <translation>图片</translation>
    </message>
    <message>
        <source>Drop a picture here,
paste one with Ctrl+V,
or open a file.</source>
        <translation>把图片拖到这里，
用 Ctrl+V 粘贴，
或打开文件。</translation>
    </message>
    <message>
        <source>How the picture was read</source>
        <translation>图片的读取方式</translation>
    </message>
    <message>
        <source>Page </source>
        <translation>第 </translation>
    </message>
    <message>
        <source>Page of the picture</source>
        <translation>图片的页码</translation>
    </message>
    <message>
        <source>Choose another page or frame</source>
        <translation>选择另一页或另一帧</translation>
    </message>
    <message>
        <source>Letters are about {here} pixels high and about {model} for the model, which needs about {least}.</source>
        <translation>文字高约 {here} 像素，在模型看来约 {model} 像素，而模型大约需要 {least} 像素。</translation>
    </message>
    <message>
        <source>Ask about {count} parts instead</source>
        <translation>改为就 {count} 个部分提问</translation>
    </message>
    <message>
        <source>Open picture files (Ctrl+O)</source>
        <translation>打开图片文件 (Ctrl+O)</translation>
    </message>
    <message>
        <source>Paste a picture</source>
        <translation>粘贴图片</translation>
    </message>
    <message>
        <source>Capture a part of the screen (Ctrl+Shift+S)</source>
        <translation>截取屏幕的一部分 (Ctrl+Shift+S)</translation>
    </message>
    <message>
        <source>Previous page</source>
        <translation>上一页</translation>
    </message>
    <message>
        <source>Next page</source>
        <translation>下一页</translation>
    </message>
    <message>
        <source> of {count}</source>
        <translation> 页，共 {count} 页</translation>
    </message>
</context>
<context>
    <name>PictureView</name>
    <message>
        <source>The picture of this conversation</source>
        <translation>此对话的图片</translation>
    </message>
    <message>
        <source>Ask about the whole picture</source>
        <translation>就整张图片提问</translation>
    </message>
    <message>
        <source>Smaller</source>
        <translation>缩小</translation>
    </message>
    <message>
        <source>Show at 100 %</source>
        <translation>按 100 % 显示</translation>
    </message>
    <message>
        <source>Larger</source>
        <translation>放大</translation>
    </message>
    <message>
        <source>Fit</source>
        <translation>适合窗口</translation>
    </message>
    <message>
        <source>Ask about a part: drag a rectangle (P)</source>
        <translation>就一部分提问：拖出一个矩形（P）</translation>
    </message>
    <message>
        <source>Rotate</source>
        <translation>旋转</translation>
    </message>
    <message>
        <source>What the model sees</source>
        <translation>模型看到的内容</translation>
    </message>
    <message>
        <source>Whole screen (F)</source>
        <translation>全屏（F）</translation>
    </message>
    <message>
        <source>More</source>
        <translation>更多</translation>
    </message>
    <message>
        <source>Copy the picture</source>
        <translation>复制图片</translation>
    </message>
    <message>
        <source>Save the picture…</source>
        <translation>保存图片…</translation>
    </message>
    <message>
        <source>{width} × {height}, {format}</source>
        <translation>{width} × {height}，{format}</translation>
    </message>
    <message>
        <source>What the model sees: {side} × {side}</source>
        <translation>模型看到的内容：{side} × {side}</translation>
    </message>
    <message>
        <source>What the model sees of this part</source>
        <translation>模型看到的这一部分</translation>
    </message>
    <message>
        <source>What the model sees of part 1 of {count}</source>
        <translation>模型看到的第 1 部分，共 {count} 部分</translation>
    </message>
    <message>
        <source>Asking about this part, {width} × {height}</source>
        <translation>就这一部分提问，{width} × {height}</translation>
    </message>
    <message>
        <source>Asking about {count} parts, one after the other</source>
        <translation>依次就 {count} 个部分提问</translation>
    </message>
    <message>
        <source>picture</source>
        <translation>图片</translation>
    </message>
    <message>
        <source>part</source>
        <translation>部分</translation>
    </message>
    <message>
        <source>Save the picture</source>
        <translation>保存图片</translation>
    </message>
</context>
<context>
    <name>Presets</name>
    <message>
        <source>Describe</source>
        <translation>描述</translation>
    </message>
    <message>
        <source>Describe this image in detail.</source>
        <translation>请详细描述这张图片。</translation>
    </message>
    <message>
        <source>Read all text</source>
        <translation>读取全部文字</translation>
    </message>
    <message>
        <source>Read all text in this image and write it as Markdown.</source>
        <translation>读取图片中的全部文字，并写成 Markdown。</translation>
    </message>
    <message>
        <source>Table to CSV</source>
        <translation>表格转 CSV</translation>
    </message>
    <message>
        <source>Write the table in this image as CSV.</source>
        <translation>把图片中的表格写成 CSV。</translation>
    </message>
    <message>
        <source>Fields as JSON</source>
        <translation>字段转 JSON</translation>
    </message>
    <message>
        <source>Extract all fields of this document as JSON.</source>
        <translation>提取这份文件的所有字段，写成 JSON。</translation>
    </message>
    <message>
        <source>Explain the chart</source>
        <translation>解释图表</translation>
    </message>
    <message>
        <source>Explain what this chart shows.</source>
        <translation>请解释这张图表说明了什么。</translation>
    </message>
    <message>
        <source>Translate</source>
        <translation>翻译</translation>
    </message>
    <message>
        <source>Translate all text in this image into English.</source>
        <translation>把图片中的全部文字翻译成中文。</translation>
    </message>
    <message>
        <source>Presets</source>
        <translation>预设</translation>
    </message>
    <message>
        <source>Question presets</source>
        <translation>预设问题</translation>
    </message>
    <message>
        <source>Save this question as a preset</source>
        <translation>将此问题保存为预设</translation>
    </message>
</context>
<context>
    <name>Prose</name>
    <message>
        <source>Answer</source>
        <translation>回答</translation>
    </message>
    <message>
        <source>Open this address?</source>
        <translation>打开这个地址吗？</translation>
    </message>
    <message>
        <source>The answer links to

{address}</source>
        <translation>回答中的链接指向

{address}</translation>
    </message>
</context>
<context>
    <name>Quality</name>
    <message>
        <source>Quality report</source>
        <translation>质量报告</translation>
    </message>
    <message>
        <source>Open the whole report</source>
        <translation>打开完整报告</translation>
    </message>
    <message>
        <source>{after} instead of {before}, {times:.1f} times smaller.</source>
        <translation>{after}，原来 {before}，缩小到 1/{times:.1f}。</translation>
    </message>
    <message>
        <source>The percentage is the error of a part&apos;s outputs on held-out samples, relative to round to nearest (100%). Smaller is better.</source>
        <translation>百分比是该部分在留出样本上的输出误差，以就近舍入为 100%。越小越好。</translation>
    </message>
    <message>
        <source>Rounded to nearest, not calibrated.</source>
        <translation>就近舍入，未校准。</translation>
    </message>
    <message>
        <source>Bytes of each part</source>
        <translation>各部分的字节数</translation>
    </message>
</context>
<context>
    <name>QuestionEditor</name>
    <message>
        <source>Change the question</source>
        <translation>修改问题</translation>
    </message>
    <message>
        <source>The later question stays with the version before this one.</source>
        <translation>后面的一个问题保留在此前的版本中。</translation>
    </message>
    <message>
        <source>The {count} later questions stay with the version before this one.</source>
        <translation>后面的 {count} 个问题保留在此前的版本中。</translation>
    </message>
    <message>
        <source>Cancel</source>
        <translation>取消</translation>
    </message>
    <message>
        <source>Ask</source>
        <translation>提问</translation>
    </message>
</context>
<context>
    <name>SamplingButton</name>
    <message>
        <source>Answer settings</source>
        <translation>回答设置</translation>
    </message>
    <message>
        <source>Varied {temperature:.2f}</source>
        <translation>多样 {temperature:.2f}</translation>
    </message>
    <message>
        <source>Exact</source>
        <translation>精确</translation>
    </message>
</context>
<context>
    <name>SamplingPopup</name>
    <message>
        <source>Answer settings</source>
        <translation>回答设置</translation>
    </message>
    <message>
        <source>Reset to defaults</source>
        <translation>全部恢复默认</translation>
    </message>
</context>
<context>
    <name>Saving</name>
    <message>
        <source>Conversation</source>
        <translation>对话</translation>
    </message>
    <message>
        <source>The file exists</source>
        <translation>文件已存在</translation>
    </message>
    <message>
        <source>{file} exists already.</source>
        <translation>{file} 已存在。</translation>
    </message>
    <message>
        <source>It is in {folder}. What should happen?</source>
        <translation>它位于 {folder}。要怎样处理？</translation>
    </message>
    <message>
        <source>Keep it, save as {file}</source>
        <translation>保留它，另存为 {file}</translation>
    </message>
    <message>
        <source>Add at its end</source>
        <translation>添加到它的末尾</translation>
    </message>
    <message>
        <source>Replace it</source>
        <translation>替换它</translation>
    </message>
    <message>
        <source>Other name or folder…</source>
        <translation>其他名称或文件夹…</translation>
    </message>
    <message>
        <source>Cancel</source>
        <translation>取消</translation>
    </message>
</context>
<context>
    <name>Settings</name>
    <message>
        <source>Settings</source>
        <translation>设置</translation>
    </message>
    <message>
        <source>Appearance</source>
        <translation>外观</translation>
    </message>
    <message>
        <source>Model</source>
        <translation>模型</translation>
    </message>
    <message>
        <source>Answers</source>
        <translation>回答</translation>
    </message>
    <message>
        <source>Language</source>
        <translation>语言</translation>
    </message>
    <message>
        <source>The language of the window.</source>
        <translation>窗口的语言。</translation>
    </message>
    <message>
        <source>System</source>
        <translation>跟随系统</translation>
    </message>
    <message>
        <source>Theme</source>
        <translation>主题</translation>
    </message>
    <message>
        <source>Light or dark colours.</source>
        <translation>浅色或深色。</translation>
    </message>
    <message>
        <source>Light</source>
        <translation>浅色</translation>
    </message>
    <message>
        <source>Dark</source>
        <translation>深色</translation>
    </message>
    <message>
        <source>Font size</source>
        <translation>字号</translation>
    </message>
    <message>
        <source>In points; Ctrl+Plus and Ctrl+Minus change it too.</source>
        <translation>以磅为单位；也可用 Ctrl+加号 和 Ctrl+减号 调整。</translation>
    </message>
    <message>
        <source>Unload when idle</source>
        <translation>空闲时卸载</translation>
    </message>
    <message>
        <source>Minutes without a question after which the model is unloaded. 0: never.</source>
        <translation>多少分钟没有提问后卸载模型。0：从不。</translation>
    </message>
    <message>
        <source>Video memory</source>
        <translation>显存</translation>
    </message>
    <message>
        <source>The most the model may use on each GPU, the next time it is loaded.</source>
        <translation>下次加载时，模型在每块 GPU 上最多可用的显存。</translation>
    </message>
    <message>
        <source>The most the model may use, the next time it is loaded.</source>
        <translation>下次加载时，模型最多可用的内存。</translation>
    </message>
    <message>
        <source>RAM</source>
        <translation>内存</translation>
    </message>
    <message>
        <source>Longest answer</source>
        <translation>最长回答</translation>
    </message>
    <message>
        <source>In tokens; a word has one or two tokens.</source>
        <translation>以 token 计；一个词约为一到两个。</translation>
    </message>
    <message>
        <source>Temperature</source>
        <translation>温度</translation>
    </message>
    <message>
        <source>0: always the most likely word, best for text and facts. Higher values are more varied and more often wrong.</source>
        <translation>0：每次取最可能的词，最适合读取文字和事实。数值越高，回答越多样，也越容易出错。</translation>
    </message>
    <message>
        <source>Top p</source>
        <translation>Top p</translation>
    </message>
    <message>
        <source>Keep only the most likely words that together reach this probability. 1: all words.</source>
        <translation>只保留合计达到这一比例的最可能的词。1：全部。</translation>
    </message>
    <message>
        <source>Top k</source>
        <translation>Top k</translation>
    </message>
    <message>
        <source>Keep only this many of the most likely words. 0: all words.</source>
        <translation>只保留这么多个最可能的词。0：全部。</translation>
    </message>
    <message>
        <source>Repetition penalty</source>
        <translation>重复惩罚</translation>
    </message>
    <message>
        <source>Above 1, words that already occurred become less likely. 1: off.</source>
        <translation>大于 1 时，已出现的词可能性降低。1：关闭。</translation>
    </message>
    <message>
        <source>All that is free</source>
        <translation>全部空闲内存</translation>
    </message>
    <message>
        <source>No GPU</source>
        <translation>无 GPU</translation>
    </message>
    <message>
        <source>Checking this computer…</source>
        <translation>正在检查这台电脑…</translation>
    </message>
    <message>
        <source>The model needs at least {least}; this computer has {most}.</source>
        <translation>模型至少需要 {least}；这台电脑有 {most}。</translation>
    </message>
    <message>
        <source>This computer has no GPU that can be used.</source>
        <translation>这台电脑没有可用的 GPU。</translation>
    </message>
</context>
<context>
    <name>SeveralFiles</name>
    <message>
        <source>Use none of them</source>
        <translation>全部不使用</translation>
    </message>
    <message>
        <source>One conversation for each</source>
        <translation>每张图片新建一个对话</translation>
    </message>
    <message>
        <source>One question about all of them</source>
        <translation>对所有图片提同一个问题</translation>
    </message>
    <message>
        <source>{count} files. The model takes one picture per conversation.</source>
        <translation>{count} 个文件。模型在每个对话中只接受一张图片。</translation>
    </message>
</context>
<context>
    <name>Sidebar</name>
    <message>
        <source>New conversation</source>
        <translation>新对话</translation>
    </message>
    <message>
        <source>Search</source>
        <translation>搜索</translation>
    </message>
    <message>
        <source>Search in conversations</source>
        <translation>搜索对话</translation>
    </message>
    <message>
        <source>Import…</source>
        <translation>导入…</translation>
    </message>
    <message>
        <source>Import a conversation that was exported as JSON</source>
        <translation>导入以 JSON 导出的对话</translation>
    </message>
    <message>
        <source>Undo delete</source>
        <translation>撤销删除</translation>
    </message>
    <message>
        <source>Conversations</source>
        <translation>对话列表</translation>
    </message>
    <message>
        <source>This conversation is still writing an answer. Stop it first.</source>
        <translation>这个对话仍在回答中，请先停止。</translation>
    </message>
    <message>
        <source>Import a conversation</source>
        <translation>导入对话</translation>
    </message>
    <message>
        <source>Rename</source>
        <translation>重命名</translation>
    </message>
    <message>
        <source>Pin or unpin</source>
        <translation>置顶或取消置顶</translation>
    </message>
    <message>
        <source>Export…</source>
        <translation>导出…</translation>
    </message>
    <message>
        <source>The conversation was saved as {file}.</source>
        <translation>对话已保存为 {file}。</translation>
    </message>
    <message>
        <source>Delete</source>
        <translation>删除</translation>
    </message>
    <message>
        <source>Undo delete ({count})</source>
        <translation>撤销删除（{count}）</translation>
    </message>
    <message>
        <source>Title</source>
        <translation>标题</translation>
    </message>
    <message>
        <source>Export the conversation</source>
        <translation>导出对话</translation>
    </message>
</context>
<context>
    <name>Teach</name>
    <message>
        <source>A style of captions or answers</source>
        <translation>描述或回答的风格</translation>
    </message>
    <message>
        <source>Trains how the model writes, and keeps what it sees in a picture. The fastest choice.</source>
        <translation>训练模型怎样书写，不改变它在图片中看到的内容。这是最快的选择。</translation>
    </message>
    <message>
        <source>Forms and documents</source>
        <translation>表单和文档</translation>
    </message>
    <message>
        <source>Trains which fields the model reads and how it writes them. Several questions about a picture cost little more than one.</source>
        <translation>训练模型读取哪些字段、怎样写出它们。关于一张图片的多个问题只比一个问题多花一点时间。</translation>
    </message>
    <message>
        <source>A new kind of object</source>
        <translation>新的物体种类</translation>
    </message>
    <message>
        <source>Trains also how the model understands a picture. Every picture then takes several times as long.</source>
        <translation>还训练模型怎样理解图片。每张图片所需的时间因此是几倍。</translation>
    </message>
    <message>
        <source>An object that it still does not see</source>
        <translation>仍然看不出的物体</translation>
    </message>
    <message>
        <source>Trains also how the model reads the pixels. The slowest choice; try “A new kind of object” first.</source>
        <translation>还训练模型怎样读取像素。这是最慢的选择；请先试“新的物体种类”。</translation>
    </message>
</context>
<context>
    <name>TeachForm</name>
    <message>
        <source>A folder…</source>
        <translation>文件夹…</translation>
    </message>
    <message>
        <source>A file…</source>
        <translation>文件…</translation>
    </message>
    <message>
        <source>Pictures with answers</source>
        <translation>带回答的图片</translation>
    </message>
    <message>
        <source>Training data</source>
        <translation>训练数据</translation>
    </message>
    <message>
        <source>Choose the pictures with answers</source>
        <translation>选择带回答的图片</translation>
    </message>
    <message>
        <source>a folder of pictures with captions, or a JSONL, JSON, CSV or TSV file</source>
        <translation>带描述文件的图片文件夹，或 JSONL、JSON、CSV、TSV 文件</translation>
    </message>
    <message>
        <source>Adapter</source>
        <translation>适配器</translation>
    </message>
    <message>
        <source>Choose the folder of the adapter</source>
        <translation>选择适配器的文件夹</translation>
    </message>
    <message>
        <source>Old questions</source>
        <translation>旧问题</translation>
    </message>
    <message>
        <source>Choose old questions to mix in</source>
        <translation>选择要混入的旧问题</translation>
    </message>
    <message>
        <source>none</source>
        <translation>无</translation>
    </message>
    <message>
        <source>Pictures with answers that the model gives already. Mixed in, they keep it from forgetting what it can do.</source>
        <translation>模型已经会回答的图片和问题。混入它们可以防止模型忘记已有的能力。</translation>
    </message>
    <message>
        <source>What to teach</source>
        <translation>训练内容</translation>
    </message>
    <message>
        <source>Question</source>
        <translation>问题</translation>
    </message>
    <message>
        <source>Question for captions</source>
        <translation>用于描述的问题</translation>
    </message>
    <message>
        <source>only for captions: Describe this image in detail.</source>
        <translation>仅用于描述：请详细描述这张图片。</translation>
    </message>
    <message>
        <source>automatic</source>
        <translation>自动</translation>
    </message>
    <message>
        <source>as found</source>
        <translation>按现有的</translation>
    </message>
    <message>
        <source>English</source>
        <translation>英文</translation>
    </message>
    <message>
        <source>Chinese</source>
        <translation>中文</translation>
    </message>
    <message>
        <source>both</source>
        <translation>两者</translation>
    </message>
    <message>
        <source>Passes over the pictures</source>
        <translation>遍历图片的次数</translation>
    </message>
    <message>
        <source>Automatic: three, and more for few pictures. The best state is kept.</source>
        <translation>自动：三次，图片少时更多。保留最好的状态。</translation>
    </message>
    <message>
        <source>Share of the old questions</source>
        <translation>旧问题的比例</translation>
    </message>
    <message>
        <source>So many of their pictures are mixed in</source>
        <translation>混入其中这么多图片</translation>
    </message>
    <message>
        <source>Labels</source>
        <translation>标注</translation>
    </message>
    <message>
        <source>For a folder of CogVLM-SFT, which has labels in two languages</source>
        <translation>用于 CogVLM-SFT 的文件夹，它有两种语言的标注</translation>
    </message>
    <message>
        <source>Train even if many rows can&apos;t be used</source>
        <translation>即使很多行不能使用也训练</translation>
    </message>
    <message>
        <source>Start again from the beginning</source>
        <translation>从头重新开始</translation>
    </message>
    <message>
        <source>The state of the earlier run in this folder is deleted</source>
        <translation>将删除此文件夹中先前训练的状态</translation>
    </message>
</context>
<context>
    <name>TeachPage</name>
    <message>
        <source>Teach the model</source>
        <translation>训练模型</translation>
    </message>
    <message>
        <source>Trains an adapter from pictures with answers: a small folder that changes what the open model answers. The model itself stays as it is. A new skill needs some hundred pictures.</source>
        <translation>用带回答的图片训练一个适配器：这是一个小文件夹，会改变已打开模型的回答，模型本身保持不变。学会一项新技能需要几百张图片。</translation>
    </message>
    <message>
        <source>Progress</source>
        <translation>进度</translation>
    </message>
    <message>
        <source>You can stop at any time; starting again continues after the last saved step.</source>
        <translation>可以随时停止；再次开始会从最后保存的一步继续。</translation>
    </message>
    <message>
        <source>Show the plan</source>
        <translation>显示计划</translation>
    </message>
    <message>
        <source>Reads the data and trains nothing</source>
        <translation>只读取数据，不训练</translation>
    </message>
    <message>
        <source>Stop</source>
        <translation>停止</translation>
    </message>
    <message>
        <source>Ends after the step, and saves</source>
        <translation>在这一步之后结束并保存</translation>
    </message>
    <message>
        <source>Use it</source>
        <translation>使用它</translation>
    </message>
    <message>
        <source>The next answers in the chat use the new adapter</source>
        <translation>对话中接下来的回答使用新的适配器</translation>
    </message>
    <message>
        <source>Open the report</source>
        <translation>打开报告</translation>
    </message>
    <message>
        <source>Open the folder</source>
        <translation>打开文件夹</translation>
    </message>
    <message>
        <source>Loss (lower is better)</source>
        <translation>损失（越低越好）</translation>
    </message>
    <message>
        <source>Question</source>
        <translation>问题</translation>
    </message>
    <message>
        <source>In the data</source>
        <translation>数据中的回答</translation>
    </message>
    <message>
        <source>Before</source>
        <translation>训练前</translation>
    </message>
    <message>
        <source>After</source>
        <translation>训练后</translation>
    </message>
    <message>
        <source>Held-out questions, which are not learnt</source>
        <translation>留出的问题，不参与训练</translation>
    </message>
    <message>
        <source>Choose pictures with answers first.</source>
        <translation>请先选择带回答的图片。</translation>
    </message>
    <message>
        <source>Continue</source>
        <translation>继续</translation>
    </message>
    <message>
        <source>Start</source>
        <translation>开始</translation>
    </message>
    <message>
        <source>Reading the data and the model…</source>
        <translation>正在读取数据和模型…</translation>
    </message>
    <message>
        <source>Stopping after this step…</source>
        <translation>在这一步之后停止…</translation>
    </message>
    <message>
        <source>Reading the pictures: {done} of {total}.</source>
        <translation>正在读取图片：{done} / {total}。</translation>
    </message>
    <message>
        <source>Answering held-out questions…</source>
        <translation>正在回答留出的问题…</translation>
    </message>
    <message>
        <source>This is the plan. Nothing was trained.</source>
        <translation>这是计划。没有进行训练。</translation>
    </message>
    <message>
        <source>Stopped after step {step}, and saved. Continue when you like.</source>
        <translation>已在第 {step} 步之后停止并保存。可以随时继续。</translation>
    </message>
    <message>
        <source>Stopped.</source>
        <translation>已停止。</translation>
    </message>
    <message>
        <source>Step {step} of {steps}</source>
        <translation>第 {step} 步，共 {steps} 步</translation>
    </message>
    <message>
        <source>pass {number}</source>
        <translation>第 {number} 遍</translation>
    </message>
    <message>
        <source>loss {loss:.3f}</source>
        <translation>损失 {loss:.3f}</translation>
    </message>
    <message>
        <source>held-out loss {loss:.3f}</source>
        <translation>留出损失 {loss:.3f}</translation>
    </message>
    <message>
        <source>{counts}.</source>
        <translation>{counts}。</translation>
    </message>
    <message>
        <source>, </source>
        <translation>，</translation>
    </message>
    <message>
        <source>{time} left.</source>
        <translation>还需 {time}。</translation>
    </message>
    <message>
        <source>Finished: {folder}.</source>
        <translation>已完成：{folder}。</translation>
    </message>
    <message>
        <source>{right} of {asked} held-out answers are right, {before} before.</source>
        <translation>{asked} 个留出问题中答对 {right} 个，训练前为 {before} 个。</translation>
    </message>
    <message>
        <source>Held-out loss {after:.3f}, {before:.3f} before.</source>
        <translation>留出损失 {after:.3f}，训练前为 {before:.3f}。</translation>
    </message>
    <message>
        <source>Loss of old questions {after:.3f}, {before:.3f} before.</source>
        <translation>旧问题的损失 {after:.3f}，训练前为 {before:.3f}。</translation>
    </message>
    <message>
        <source>{answers} answers about {pictures} pictures to learn, {held_out} held out.</source>
        <translation>要学习关于 {pictures} 张图片的 {answers} 个回答，留出 {held_out} 个。</translation>
    </message>
    <message>
        <source>{count} old answers mixed in.</source>
        <translation>混入 {count} 个旧回答。</translation>
    </message>
    <message>
        <source>{count} rows can&apos;t be used; training/skipped.jsonl says why.</source>
        <translation>有 {count} 行不能使用；原因见 training/skipped.jsonl。</translation>
    </message>
    <message>
        <source>{numbers} numbers to train, in {steps} steps.</source>
        <translation>要训练 {numbers} 个数，共 {steps} 步。</translation>
    </message>
    <message>
        <source>About {time}, calculated; {memory} of memory, {disk} of disk.</source>
        <translation>计算得约需 {time}；内存 {memory}，磁盘 {disk}。</translation>
    </message>
    <message>
        <source>Continues after step {step}.</source>
        <translation>从第 {step} 步之后继续。</translation>
    </message>
</context>
<context>
    <name>Transcript</name>
    <message>
        <source>Conversation</source>
        <translation>对话</translation>
    </message>
</context>
<context>
    <name>TurnView</name>
    <message>
        <source>Question</source>
        <translation>问题</translation>
    </message>
    <message>
        <source>Copy as text</source>
        <translation>复制为文本</translation>
    </message>
    <message>
        <source>Copy as Markdown</source>
        <translation>复制为 Markdown</translation>
    </message>
    <message>
        <source>Answer again</source>
        <translation>重新回答</translation>
    </message>
    <message>
        <source>Edit the question</source>
        <translation>修改问题</translation>
    </message>
    <message>
        <source>Copy or save a table</source>
        <translation>复制或保存表格</translation>
    </message>
    <message>
        <source>Continue</source>
        <translation>继续</translation>
    </message>
    <message>
        <source>Ask about the parts that have no answer yet</source>
        <translation>就还没有答案的部分提问</translation>
    </message>
    <message>
        <source>Continue the answer where it stopped</source>
        <translation>从中断的地方继续回答</translation>
    </message>
    <message>
        <source>Earlier version</source>
        <translation>上一版本</translation>
    </message>
    <message>
        <source>Later version</source>
        <translation>下一版本</translation>
    </message>
    <message>
        <source>Version {number} has 1 later question.</source>
        <translation>版本 {number} 后面还有 1 个问题。</translation>
    </message>
    <message>
        <source>Version {number} has {count} later questions.</source>
        <translation>版本 {number} 后面还有 {count} 个问题。</translation>
    </message>
    <message>
        <source>The program ended during this answer. Answer again?</source>
        <translation>回答时程序已结束。重新回答吗？</translation>
    </message>
    <message>
        <source>Preparing…</source>
        <translation>正在准备…</translation>
    </message>
    <message>
        <source>Adapter: {name}.</source>
        <translation>适配器：{name}。</translation>
    </message>
    <message>
        <source>{tokens} tokens, {rate:.1f} tokens/s; picture {encode:.2f} s, reading {prefill:.2f} s, answering {decode:.2f} s</source>
        <translation>{tokens} 个 token，每秒 {rate:.1f} 个；看图 {encode:.2f} 秒，读题 {prefill:.2f} 秒，回答 {decode:.2f} 秒</translation>
    </message>
    <message>
        <source>; stopped</source>
        <translation>；已停止</translation>
    </message>
    <message>
        <source>; length limit reached</source>
        <translation>；因长度上限而结束</translation>
    </message>
    <message>
        <source>Table {number}</source>
        <translation>表格 {number}</translation>
    </message>
    <message>
        <source>Copy the table</source>
        <translation>复制表格</translation>
    </message>
    <message>
        <source>Save as CSV…</source>
        <translation>另存为 CSV…</translation>
    </message>
</context>
<context>
    <name>Welcome</name>
    <message>
        <source>First steps</source>
        <translation>开始使用</translation>
    </message>
    <message>
        <source>Ask about a picture</source>
        <translation>就一张图片提问</translation>
    </message>
    <message>
        <source>Try the small demo model</source>
        <translation>试用小型演示模型</translation>
    </message>
    <message>
        <source>Open a model folder</source>
        <translation>打开模型文件夹</translation>
    </message>
    <message>
        <source>Try it with a sample picture</source>
        <translation>用示例图片试一试</translation>
    </message>
    <message>
        <source>The demo model (11 MB) is part of this program. It knows only drawn pictures like these: flat shapes, signs with capital letters or digits, and bar charts, in English and Chinese. About photographs and everything else its answers are wrong.</source>
        <translation>演示模型（11 MB）是本程序的一部分。它只认识这样的绘制图片：平面图形、带大写字母或数字的牌子，以及柱状图，支持英文和中文。对于照片和其他任何内容，它的回答都是错误的。</translation>
    </message>
    <message>
        <source>The real model: CogVLM2 19B</source>
        <translation>正式模型：CogVLM2 19B</translation>
    </message>
    <message>
        <source>It reads photographs, documents and diagrams. Download the folder cogvlm2-llama3-chat-19B (English) or cogvlm2-llama3-chinese-chat-19B (English and Chinese), 39 GB, for example from the pages of THUDM on Hugging Face or ModelScope. This program downloads nothing. Then convert the folder once to 4 bits (12 GB) on the page Convert. The page Memory shows how it would run on this computer, without the download.</source>
        <translation>它能看懂照片、文档和图表。请下载文件夹 cogvlm2-llama3-chat-19B（英文）或 cogvlm2-llama3-chinese-chat-19B（中英文），39 GB，例如从 Hugging Face 或 ModelScope 上 THUDM 的页面下载。本程序不下载任何内容。然后在“转换”页面把该文件夹转换一次，成为 4 位模型（12 GB）。“内存”页面无需下载即可显示它在这台电脑上如何运行。</translation>
    </message>
    <message>
        <source>Convert a downloaded checkpoint</source>
        <translation>转换已下载的权重</translation>
    </message>
    <message>
        <source>See what it needs on this computer</source>
        <translation>查看它在这台电脑上需要多少内存</translation>
    </message>
    <message>
        <source>Drop a picture anywhere in this window and write a question below.</source>
        <translation>把图片拖到此窗口的任意位置，然后在下方写下问题。</translation>
    </message>
    <message>
        <source>Everything stays on this computer. First choose a model.</source>
        <translation>一切都留在这台电脑上。请先选择模型。</translation>
    </message>
</context>
<context>
    <name>Wording</name>
    <message>
        <source>Choose “Include subfolders” to use the pictures in them, too.</source>
        <translation>勾选“包括子文件夹”可同时使用子文件夹中的图片。</translation>
    </message>
    <message>
        <source>Free some space or make its folder writable, then press Start to resume.</source>
        <translation>请释放空间或使其文件夹可写，然后按“开始”继续。</translation>
    </message>
    <message>
        <source>Choose another folder for the answers.</source>
        <translation>请为回答选择其他文件夹。</translation>
    </message>
    <message>
        <source>Move it away, or choose another folder for the answers.</source>
        <translation>请将其移走，或为回答选择其他文件夹。</translation>
    </message>
    <message>
        <source>Press Start again; saved answers are kept.</source>
        <translation>请再次按“开始”；已保存的回答会保留。</translation>
    </message>
    <message>
        <source>Free some space, or close the program that has the table open. Then press Start to resume.</source>
        <translation>请释放空间，或关闭打开该表格的程序，然后按“开始”继续。</translation>
    </message>
    <message>
        <source>Choose the folder of a downloaded checkpoint, or try the small demo model. This program downloads nothing.</source>
        <translation>请选择已下载的检查点文件夹，或试用小型演示模型。本程序不会下载任何内容。</translation>
    </message>
    <message>
        <source>The budget of video memory has no effect: the model runs on the CPU, in RAM.</source>
        <translation>显存预算无效：模型在 CPU 上运行，使用内存。</translation>
    </message>
    <message>
        <source>Start the engine again. If it happens again, the report on the page About shows which GPUs still respond.</source>
        <translation>请重新启动引擎。如果再次发生，“关于”页面的报告会显示哪些 GPU 仍有响应。</translation>
    </message>
    <message>
        <source>Close other programs, or allow more memory on the page Memory.</source>
        <translation>请关闭其他程序，或在“内存”页面允许使用更多内存。</translation>
    </message>
    <message>
        <source>Choose the memory again on the page Settings.</source>
        <translation>请在“设置”页面重新选择内存。</translation>
    </message>
    <message>
        <source>Choose one of them under “Data files”.</source>
        <translation>请在“数据文件”中选择其中一个。</translation>
    </message>
    <message>
        <source>Choose “Ask everything again”, or another folder for the results.</source>
        <translation>请选择“全部重新提问”，或另选一个保存结果的文件夹。</translation>
    </message>
    <message>
        <source>Choose “Start again from the beginning”.</source>
        <translation>请选择“从头重新开始”。</translation>
    </message>
    <message>
        <source>Close other programs, or allow more memory.</source>
        <translation>请关闭其他程序，或允许使用更多内存。</translation>
    </message>
    <message>
        <source>{value!r} in the settings is not a size.</source>
        <translation>设置中的 {value!r} 不是大小。</translation>
    </message>
    <message>
        <source>{value} in the settings is more than any computer has.</source>
        <translation>设置中的 {value} 超过任何电脑的内存。</translation>
    </message>
    <message>
        <source>{size} in the settings is too small for any plan.</source>
        <translation>设置中的 {size} 对任何规划都太小。</translation>
    </message>
    <message>
        <source>Install the {build} build of torch and a driver, then start the program again.</source>
        <translation>请安装 torch 的 {build} 版本和驱动，然后重新启动程序。</translation>
    </message>
    <message>
        <source>Another version of torch may have what is missing.</source>
        <translation>其他版本的 torch 可能支持缺少的功能。</translation>
    </message>
    <message>
        <source>Apple&apos;s GPUs need macOS and an Apple chip.</source>
        <translation>Apple 的 GPU 需要 macOS 和 Apple 芯片。</translation>
    </message>
    <message>
        <source>{device} ({name}): {maker} GPUs are untested on real hardware. Answers may be wrong.</source>
        <translation>{device}（{name}）：{maker} 的 GPU 尚未在真实硬件上测试过，回答可能有误。</translation>
    </message>
    <message>
        <source>Download the file itself: this is only a pointer of Git LFS.</source>
        <translation>请下载文件本身：这只是 Git LFS 的指针文件。</translation>
    </message>
    <message>
        <source>Convert the same checkpoint into the same folder again, on the page Convert: the conversion continues where it stopped.</source>
        <translation>请在“转换”页面将同一检查点再次转换到同一文件夹：转换会从停止处继续。</translation>
    </message>
    <message>
        <source>A budget of video memory needs a GPU, and the CPU was chosen.</source>
        <translation>显存预算需要 GPU，而已选择 CPU。</translation>
    </message>
    <message>
        <source>Set a budget of RAM instead.</source>
        <translation>请改为设置内存预算。</translation>
    </message>
    <message>
        <source>Answers are the same with every plan.</source>
        <translation>任何计划下回答都相同。</translation>
    </message>
    <message>
        <source>Install the package pillow-heif, or save the picture as JPEG or PNG.</source>
        <translation>请安装 pillow-heif 包，或将图片另存为 JPEG 或 PNG。</translation>
    </message>
    <message>
        <source>Install a newer version of Pillow, or save the picture as JPEG or PNG.</source>
        <translation>请安装更新版本的 Pillow，或将图片另存为 JPEG 或 PNG。</translation>
    </message>
    <message>
        <source>The budget of video memory has {given} sizes, but the number of usable GPUs is {count}.</source>
        <translation>显存预算有 {given} 个大小，但可用 GPU 的数量为 {count}。</translation>
    </message>
    <message>
        <source>Allow more memory on the page Memory. In this memory, only a context of {context} tokens would fit.</source>
        <translation>请在“内存”页面允许使用更多内存。当前内存只能容纳 {context} 个 token的上下文。</translation>
    </message>
    <message>
        <source>Please report it with the log and the report on the page About.</source>
        <translation>请附上日志和“关于”页面的报告进行反馈。</translation>
    </message>
    <message>
        <source>Choose the same calibration as before, or another new folder.</source>
        <translation>请选择与之前相同的校准，或另选新文件夹。</translation>
    </message>
    <message>
        <source>Free some space, or use another disk.</source>
        <translation>请释放空间，或使用其他磁盘。</translation>
    </message>
    <message>
        <source>Finished work is kept: press Start to continue.</source>
        <translation>已完成的工作会保留：按“开始”继续。</translation>
    </message>
    <message>
        <source>Finished work is kept: close other programs that use this memory, and press Start to continue.</source>
        <translation>已完成的工作会保留：请关闭占用此内存的其他程序，然后按“开始”继续。</translation>
    </message>
    <message>
        <source>Calibrating takes about {time}, and up to {size} of disk space until it is finished. You can stop it and resume it later.</source>
        <translation>校准大约需要 {time}，完成之前最多占用 {size} 磁盘空间。可以随时停止，以后再继续。</translation>
    </message>
    <message>
        <source>Choose the same calibration as before to continue it, or another new folder.</source>
        <translation>请选择与之前相同的校准以继续，或另选新文件夹。</translation>
    </message>
    <message>
        <source>Choose a new folder on another disk, or free some space.</source>
        <translation>请在其他磁盘上选择新文件夹，或释放空间。</translation>
    </message>
    <message>
        <source>Another program changed the folder. Press Start again.</source>
        <translation>其他程序更改了该文件夹。请再次按“开始”。</translation>
    </message>
    <message>
        <source>Free some space and press Start: the conversion continues where it stopped.</source>
        <translation>请释放空间并按“开始”：转换会从停止处继续。</translation>
    </message>
    <message>
        <source>The file was changed while it was read. Put the whole file back and press Start again.</source>
        <translation>文件在读取时被更改。请放回完整文件，然后再次按“开始”。</translation>
    </message>
    <message>
        <source>The disk or the network may be failing. Finished work is kept: put a good copy of the file in its place and press Start again.</source>
        <translation>磁盘或网络可能有故障。已完成的工作会保留：请放入完好的文件副本，然后再次按“开始”。</translation>
    </message>
    <message>
        <source>Correct them, or choose “Train even if many rows can&apos;t be used”.</source>
        <translation>请改正它们，或选择“即使很多行不能使用也训练”。</translation>
    </message>
    <message>
        <source>Use more pictures.</source>
        <translation>请使用更多图片。</translation>
    </message>
    <message>
        <source>Look at these rows. The adapter and the state of step {saved} are kept.</source>
        <translation>请查看这些行。第 {saved} 步的适配器和状态已保留。</translation>
    </message>
    <message>
        <source>The state of step {saved} is kept.</source>
        <translation>第 {saved} 步的状态已保留。</translation>
    </message>
    <message>
        <source>The held-out loss is {after} with the adapter and {before} without it, so it does not help. Look at the data.</source>
        <translation>使用适配器时留出损失为 {after}，不使用时为 {before}，因此它没有帮助。请检查数据。</translation>
    </message>
    <message>
        <source>The held-out loss has risen at {count} evaluations. The adapter of step {step} is kept; you can stop the run.</source>
        <translation>留出损失已在 {count} 次评估中上升。第 {step} 步的适配器已保留；可以停止训练。</translation>
    </message>
    <message>
        <source>The loss has been above {loss} for {steps} steps, and was about {before} before.</source>
        <translation>损失已连续 {steps} 步高于 {loss}，之前约为 {before}。</translation>
    </message>
    <message>
        <source>The answers are learnt by heart: their loss is {loss}, while the held-out loss rises. The adapter of step {step} is kept. Fewer passes or more pictures help.</source>
        <translation>模型在死记回答：它们的损失为 {loss}，而留出损失在上升。第 {step} 步的适配器已保留。减少遍数或增加图片会有帮助。</translation>
    </message>
    <message>
        <source>Press Continue: it goes on after step {saved}, which is saved. The report on the page About shows which GPUs still respond.</source>
        <translation>请按“继续”：将从已保存的第 {saved} 步之后继续。“关于”页的报告显示哪些 GPU 仍有响应。</translation>
    </message>
    <message>
        <source>Free some space, then press Continue: it goes on after step {step}.</source>
        <translation>请释放一些空间，然后按“继续”：将从第 {step} 步之后继续。</translation>
    </message>
    <message>
        <source>Choose the same number of passes, another folder for the adapter, or “Start again from the beginning”.</source>
        <translation>请选择相同的遍数、适配器的另一个文件夹，或“从头重新开始”。</translation>
    </message>
    <message>
        <source>The window can&apos;t train on this GPU. The command finetune can, in float32.</source>
        <translation>窗口无法在这块 GPU 上训练。命令 finetune 可以用 float32 训练。</translation>
    </message>
    <message>
        <source>Choose one with the button next to the model.</source>
        <translation>请用模型旁边的按钮选择一个。</translation>
    </message>
    <message>
        <source>Choose one of them, or both, under “Labels”.</source>
        <translation>请在“标注”中选择其中一种，或两者。</translation>
    </message>
    <message>
        <source>Choose the same settings to continue, another folder for the adapter, or “Start again from the beginning”.</source>
        <translation>要继续，请选择相同的设置；也可以为适配器选择另一个文件夹，或选择“从头重新开始”。</translation>
    </message>
    <message>
        <source>Free some space, then press Continue.</source>
        <translation>请释放一些空间，然后按“继续”。</translation>
    </message>
    <message>
        <source>Open the model that it was made for.</source>
        <translation>请打开该适配器对应的模型。</translation>
    </message>
    <message>
        <source>Choose the benchmark, and this folder under “Data files”.</source>
        <translation>请选择基准测试，并在“数据文件”中选择此文件夹。</translation>
    </message>
    <message>
        <source>Put {file} into {folder}, or choose a file or folder under “Data files”.</source>
        <translation>请将 {file} 放入 {folder}，或在“数据文件”中选择文件或文件夹。</translation>
    </message>
    <message>
        <source>The Arrow files in {cache} are not read: download the data set into {hub}, or choose a file or folder under “Data files”.</source>
        <translation>不会读取 {cache} 中的 Arrow 文件：请将数据集下载到 {hub}，或在“数据文件”中选择文件或文件夹。</translation>
    </message>
    <message>
        <source>The window can&apos;t write answers for a server.</source>
        <translation>此窗口不能为评测服务器写出回答。</translation>
    </message>
    <message>
        <source>Download the pictures themselves: these files only say where they are.</source>
        <translation>请下载图片本身：这些文件只记录了图片的位置。</translation>
    </message>
    <message>
        <source>Install the package pyarrow for this program, then start it again.</source>
        <translation>请为本程序安装软件包 pyarrow，然后重新启动。</translation>
    </message>
</context>
</TS>
